"""`soar-tf compare`."""

import json

import click

from soar_tf.cli import params
from soar_tf.cli.startup import load_tensorflow


@click.command(short_help="Compare two reports of the same images.")
@click.argument("first", type=params.PathName(), metavar="REPORT")
@click.argument("second", type=params.PathName(), metavar="REPORT")
@click.option(
    "--output",
    type=params.PathName(),
    metavar="DIR",
    help="Folder for comparison.json and comparison.md. [default: none]",
)
@params.json_option
def compare(first, second, output, as_json):
    """Compare two REPORTs, folders of soar-tf evaluate --output, image by image.

    Prints the difference of the worst cases, its 95 % interval, McNemar's exact test, and the
    images that only one network withstands. Reports of other images or threat models are refused.

    Example: soar-tf compare reports/soar reports/adversarial
    """
    load_tensorflow()
    from soar_tf.reports import comparison

    found = comparison.compare(first, second, output)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"First: {found['models'][0]}\nSecond: {found['models'][1]}")
    click.echo(f"{found['n']} images of {found['dataset']} ({found['split']}), {found['threats']}.")
    click.echo()
    click.echo(params.table(comparison.rows(found), ["", "result"]))
    click.echo()
    for name, key in (("first", "only_first"), ("second", "only_second")):
        click.echo(f"Images that only the {name} withstands: {comparison.listed(found[key])}.")
    click.echo(found["note"])
