"""`soar-tf export`."""

import json

import click

from soar_tf.cli import params
from soar_tf.cli.completion import Model
from soar_tf.cli.startup import load_tensorflow


@click.command(short_help="Export a model as a plain SavedModel.")
@click.argument("model", type=Model(), metavar="MODEL")
@click.argument("out", type=click.Path(), metavar="OUT")
@params.json_option
def export(model, out, as_json):
    """Export MODEL, a run directory, a .keras file or zoo:NAME, to the SavedModel folder OUT.

    The SavedModel maps images in [0, 1] to logits and loads without soar_tf.

    Example: soar-tf export runs/digits exported/digits
    """
    load_tensorflow()
    from soar_tf.models import saved_model
    from soar_tf.runs import models

    saved_model.export(models.load_network(models.network_path(model, "model")), out)
    click.echo(json.dumps({"saved_model": out}, indent=2) if as_json else out)
