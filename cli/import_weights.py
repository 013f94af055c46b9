"""`soar-tf import`."""

import json
from pathlib import Path

import click

from soar_tf.cli import params, settings
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import InputError
from soar_tf.runs.settings import ImageSettings
from soar_tf.validation import parse_number

_NETWORKS = ("preact_resnet18", "wide_resnet")


class PerChannel(click.ParamType):
    """Numbers separated by commas, one per channel."""

    name = "NUMBER,..."

    def convert(self, value, param, ctx):
        if isinstance(value, list):
            return value
        try:
            return [parse_number(part, param.name) for part in value.split(",")]
        except InputError as error:
            self.fail(str(error), param, ctx)


@click.command("import", short_help="Import the weights of a PyTorch checkpoint.")
@click.argument("checkpoint", type=params.PathName(), metavar="CHECKPOINT")
@click.option(
    "--network",
    type=click.Choice(_NETWORKS),
    required=True,
    help="What the weights are of; depth, width, channels and classes are the checkpoint's.",
)
@click.option(
    "--output",
    type=params.PathName(),
    metavar="FILE.keras",
    help="Where to write. [default: CHECKPOINT with the suffix .keras]",
)
@click.option(
    "--mean",
    type=PerChannel(),
    help="What is subtracted from pixels in [0, 1], one number per channel. [default: the "
    "checkpoint's mu or mean, else 0]",
)
@click.option(
    "--std",
    type=PerChannel(),
    help="What they are then divided by. [default: the checkpoint's sigma or std, else 1]",
)
@settings.options(ImageSettings, ["image_size"])
@params.json_option
def import_weights(checkpoint, network, output, mean, std, image_size, as_json):
    """Write the network of a PyTorch CHECKPOINT as a .keras file.

    CHECKPOINT is a file of torch.save (PyTorch 1.6 or later) or .safetensors, with a state_dict. It
    is read without running anything in it. Check the clean accuracy afterwards: the names of the
    weights do not tell an activation or a normalisation.

    Example: soar-tf import trades.pt --network wide_resnet --output trades.keras
    """
    output = output or str(Path(checkpoint).with_suffix(".keras"))
    load_tensorflow()
    from soar_tf.models import exports, torch_import

    exports.check(output, "keras")
    model = torch_import.load(
        checkpoint, network, mean=mean, std=std, image_size=tuple(image_size or (32, 32))
    )
    found = exports.export(model, output, "keras")
    if as_json:
        about = {"parameters": model.count_params(), "input_shape": list(model.input_shape[1:])}
        click.echo(json.dumps({"path": output, "network": network, **about}, indent=2))
        return
    click.echo(found.path)
    height, width, channels = model.input_shape[1:]
    click.echo(
        f"{network}, {model.count_params():,} parameters, images of {height}x{width}x{channels}, "
        f"{model.output_shape[1]} classes."
    )
