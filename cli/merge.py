"""`soar-tf merge`."""

import json
from pathlib import Path

import click

from soar_tf.cli import params
from soar_tf.cli.evaluate import is_folder, report_lines
from soar_tf.cli.startup import load_tensorflow


@click.command(short_help="Merge the reports of all shards of an evaluation.")
@click.argument("reports", type=params.PathName(), nargs=-1, required=True, metavar="REPORT...")
@click.option(
    "--output",
    type=params.PathName(),
    required=True,
    metavar="DIR|FILE.json",
    help="Folder for the report, as that of `soar-tf evaluate --output`; or a name that ends in "
    ".json, for that file alone.",
)
@params.json_option
def merge(reports, output, as_json):
    """Merge REPORTs: the folders that soar-tf evaluate --shard K/N wrote, all N in any order.

    The merged report is that of a single process, except for the times and what it says about the
    machines. Missing or doubled shards, and shards of another evaluation, are refused.

    Example: soar-tf merge reports/soar-1 reports/soar-2 --output reports/soar
    """
    load_tensorflow()
    from soar_tf.reports import shards

    report = shards.merge(reports, output)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo("\n".join(report_lines(report)))
    if is_folder(output):
        click.echo(f"Report: {Path(output) / 'report.html'}")
