"""`soar-tf export`."""

import json

import click

from soar_tf import registry
from soar_tf.cli import params, settings
from soar_tf.cli.completion import Model, Registered
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import InputError
from soar_tf.formatting import percent
from soar_tf.runs.settings import ImageSettings

_CALIBRATION_IMAGES = 200
_SUSPICIOUS = 0.9


@click.command(short_help="Export a model: SavedModel, .keras, LiteRT or ONNX.")
@click.argument("model", type=Model(), metavar="MODEL")
@click.argument("out", type=params.PathName(), metavar="OUT")
@click.option(
    "--format",
    "format_name",
    type=Registered(registry.EXPORT_FORMATS),
    metavar="NAME",
    help="saved_model, keras, litert or onnx. [default: by the suffix of OUT, else saved_model]",
)
@click.option(
    "--quantize",
    type=click.Choice(["float16", "int8"]),
    help="For LiteRT: weights in half precision, or weights and activations in 8 bits. [default: "
    "float32]",
)
@click.option(
    "--calibrate",
    type=params.POSITIVE,
    help="Number of validation images that choose the ranges of int8. [default: "
    f"{_CALIBRATION_IMAGES}]",
)
@settings.options(ImageSettings, ["dataset", "data_dir", "image_size"])
@params.json_option
def export(model, out, format_name, quantize, calibrate, as_json, **data):
    """Export MODEL, a run directory, a .keras file or zoo:NAME, to OUT.

    The export maps images in [0, 1] to logits. It is compared with the model before it gets its
    name: on validation images for int8 or where a data set is given, else on noise.

    Example: soar-tf export runs/digits digits.tflite --quantize int8
    """
    if calibrate is not None and quantize != "int8":
        raise InputError("--calibrate needs --quantize int8.")
    load_tensorflow()
    from soar_tf.models import exports
    from soar_tf.runs import models

    format_name = format_name or exports.guess(out)
    exports.check(out, format_name, quantize)
    count = calibrate or _CALIBRATION_IMAGES
    given = quantize == "int8" or any(value is not None for value in data.values())
    loaded = models.load_for_export(model)
    images = models.validation_images(model, loaded, count, **data) if given else None
    found = exports.export(loaded.network, out, format_name, quantize=quantize, images=images)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
        return
    click.echo(out)
    click.echo(_comparison(found))
    if found.same_top_class is not None and found.same_top_class < _SUSPICIOUS:
        click.echo("Warning: that is not the same network; try more --calibrate images.", err=True)


def _comparison(found):
    size = f"{found.bytes / 1000:.1f} kB"
    if not found.images:
        return f"{size}; not compared with the model, since only Keras knows its input."
    where = f"{found.images} {'images of noise' if found.compared_on == 'noise' else 'images'}"
    return (
        f"{size}. On {where} it has the model's top class for {percent(found.same_top_class)}; the "
        f"largest difference of a logit is {found.largest_difference:.2g}, where the largest logit "
        f"is {found.largest_logit:.3g}."
    )
