"""`soar-tf plot`."""

import click

from soar_tf.cli import params
from soar_tf.cli.completion import Model
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import InputError, RunError


@click.command(short_help="Draw runs and reports: training curves, accuracy, transfer, images.")
@click.argument("sources", type=Model(), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output",
    type=params.PathName(),
    required=True,
    metavar="DIR",
    help="Folder for the pictures.",
)
@click.option(
    "--loss-surface",
    "surface_images",
    type=params.POSITIVE,
    metavar="N",
    help="Also draw the loss around the first N test images of each run, their mean: along the "
    "gradient's signs, and over the plane of these and random signs. [default: none]",
)
@click.option(
    "--epsilon",
    type=params.Number(),
    help="Radius to mark in the loss surface, in units of pixels in [0, 1]; it reaches twice as "
    "far. [default: the data set's usual one, 8/255 for CIFAR-10]",
)
def plot(sources, output, surface_images, epsilon):
    """Draw what each RUN holds: a run directory, a log.csv, a report.json or its folder, a
    transfer.json or its folder, or zoo:NAME.

    Runs share one picture of training curves, and reports with a curve one of accuracy against the
    radius. Reports with an adversarial.npz give a grid of images. Prints the files it wrote. A RUN
    that cannot be read is named and left out, and the exit code is 1 then.

    Example: soar-tf plot runs/standard runs/soar reports/soar --output pictures
    """
    if epsilon is not None and surface_images is None:
        raise InputError("--epsilon needs --loss-surface.")
    load_tensorflow()
    from soar_tf.reports import pictures

    left_out: list[str] = []
    for path in pictures.plot(
        sources, output, surface_images=surface_images, epsilon=epsilon, left_out=left_out
    ):
        click.echo(str(path))
    for message in left_out:
        click.echo(message, err=True)
    if left_out:
        raise RunError(f"{len(left_out)} of {len(sources)} runs could not be drawn.")
