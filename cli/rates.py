"""The options of `soar-tf train` for learning rates."""

import click

from soar_tf.cli import params
from soar_tf.runs.config import SCHEDULES


def learning_rate_options(command):
    """The options that say how fast a training goes, and how that changes."""
    options = (
        click.option(
            "--learning-rate",
            type=params.Number(),
            help="Peak learning rate of the method. [default: with sgd onecycle and cosine 0.05, "
            "paper and constant 0.01, adam 1e-3; fine-tuning or through second derivatives 0.01, "
            "0.002 and 1e-4]",
        ),
        click.option(
            "--pretrain-learning-rate",
            type=params.Number(),
            help="Peak learning rate of standard training. [default: as for training from scratch]",
        ),
        click.option(
            "--lr-schedule",
            type=click.Choice(SCHEDULES),
            help="onecycle: warm-up and cosine; cosine: without a warm-up; paper: two drops by 10. "
            "[default: onecycle]",
        ),
        click.option(
            "--lr-warmup",
            type=params.POSITIVE,
            metavar="STEPS",
            help="Let the rate rise to its peak in so many steps, at the beginning of each phase. "
            "[default: onecycle: 30 % of the phase; others: none]",
        ),
        click.option(
            "--lr-drop",
            "lr_drops",
            type=params.POSITIVE,
            multiple=True,
            metavar="EPOCH",
            help="With --lr-schedule paper: divide the rate by 10 after this epoch of the method. "
            "Repeatable. [default: in proportion to the paper's epochs]",
        ),
        click.option(
            "--lr-drop-step",
            "lr_drop_steps",
            type=params.POSITIVE,
            multiple=True,
            metavar="STEP",
            help="The same after this training step of the method, instead of an epoch. "
            "Repeatable. [default: by epochs]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
