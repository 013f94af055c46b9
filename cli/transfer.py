"""`soar-tf transfer`."""

import json

import click

from soar_tf.cli import params, settings
from soar_tf.cli.completion import Model
from soar_tf.cli.progress import drawer
from soar_tf.cli.startup import load_tensorflow
from soar_tf.formatting import percent, threat_text
from soar_tf.runs.evaluation_config import TransferConfig


@click.command(short_help="Attack models through the adversarial examples of other models.")
@click.option(
    "--source",
    "sources",
    type=Model(),
    multiple=True,
    required=True,
    metavar="MODEL",
    help="Model to craft adversarial examples against. Repeatable.",
)
@click.option(
    "--target",
    "targets",
    type=Model(),
    multiple=True,
    required=True,
    metavar="MODEL",
    help="Model that has to classify them. Repeatable.",
)
@settings.options(TransferConfig, ["attack"])
@settings.options(TransferConfig, but=["attack"], required=["output"])
@params.verbose_option
@params.json_option
def transfer(sources, targets, verbose, as_json, **options):
    """Attack each --target with adversarial examples crafted against each --source.

    A MODEL is a run directory, a .keras file, a SavedModel folder or zoo:NAME; as a target also a
    .tflite or .onnx file, which has no white-box figure. Beside the figures stands the target's own
    white-box figure, by the same attack: where transfer breaks more than
    white-box, the target's gradients mislead the attack.

    Example: soar-tf transfer --source runs/standard --target runs/soar --output transfer
    """
    load_tensorflow()
    from soar_tf.reports import transfer as experiment

    progress = drawer(verbose, "crafting against ")
    config = TransferConfig(**settings.given(TransferConfig, options))
    report = experiment.transfer_models(sources, targets, config, progress=progress)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    header, rows = experiment.table(report)
    click.echo(params.table([[name, *map(percent, row)] for name, *row in rows], header))
    radius = ""
    if report["epsilon"] is not None:
        radius = f", {threat_text(report['norm'], report['epsilon'])}"
    click.echo(
        f"{report['attack']}{radius}, {report['n']} images of {report['dataset']} "
        f"({report['split']}), seed {report['seed']}."
    )
    click.echo(report["note"])
