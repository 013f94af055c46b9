"""`soar-tf reproduce`."""

import logging

import click

from soar_tf import paper
from soar_tf.cli import params, settings
from soar_tf.cli.progress import drawer
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import RunError
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.settings import ImageSettings
from soar_tf.validation import PRECISIONS


@click.command(short_help="Make a table, figure or section of the SOAR paper again.")
@click.argument("name", type=click.Choice(list(paper.ENTRIES)), metavar="NAME")
@click.option(
    "--budget",
    type=click.Choice(["smoke", "short", "paper"]),
    default="smoke",
    show_default=True,
    help="smoke: seconds to a minute, figures without meaning; short: hours on 2 cores; paper: the "
    "paper's schedules.",
)
@click.option(
    "--dataset",
    type=click.Choice(["cifar10", "digits"]),
    help="Data set. [default: the entry's own, cifar10 for tables]",
)
@settings.options(ImageSettings, ["data_dir"])
@click.option(
    "--seeds", type=params.POSITIVE, help="Number of seeds. [default: smoke 1, short 2, paper 3]"
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Compute precision of training, as for `soar-tf train`.",
)
@click.option(
    "--models",
    type=params.PathName(),
    metavar="DIR",
    help="Take networks from DIR, where they are named NAME-seedK or NAME-seedK.keras, such as "
    "standard-seed0; missing ones are trained. [default: none]",
)
@click.option(
    "--output",
    type=params.PathName(),
    required=True,
    metavar="DIR",
    help="Folder for NAME.json, NAME.csv, NAME.md and NAME.png; networks and measurements are kept "
    "there, so that the same command goes on where it was stopped.",
)
@settings.options(TrainConfig, ["checkpoint_every"])
@click.option(
    "--verbose",
    type=click.IntRange(0, 2),
    default=2,
    show_default=True,
    help="0: silent; while networks train, 1: progress bars, 2: one line an epoch.",
)
@params.json_option
def reproduce(as_json, **options):
    """Make NAME again, our figures beside the paper's.

    \b
    NAMES

    Entries written to one --output share their networks.

    Example: soar-tf reproduce section2 --budget short --output results
    """
    load_tensorflow()
    # It warns of retracing where one process trains several networks, each with its own graph.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    from soar_tf.paper.reproduce import reproduce as run

    try:
        report, paths = run(**options, progress=drawer(options["verbose"]))
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command goes on where it stopped.") from None
    if as_json:
        click.echo(paths[0].read_text(encoding="utf-8"), nl=False)
        return
    for grid in report.grids:
        click.echo(grid.markdown() + "\n")
    for finding in report.findings:
        click.echo(f"- {finding}")
    click.echo("Written: " + ", ".join(str(path) for path in paths))


_WIDTH = max(map(len, paper.ENTRIES))
reproduce.help = (reproduce.help or "").replace(
    "NAMES", "\n    ".join(f"{name:{_WIDTH}}  {text}" for name, text in paper.ENTRIES.items())
)
