"""`soar-tf train`."""

import json

import click

from soar_tf import config as config_room
from soar_tf.cli import params
from soar_tf.cli.completion import Registered
from soar_tf.cli.evaluate import progress
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import RunError


@click.command(short_help="Train a network robustly; resumes where it was stopped.")
@click.option(
    "--method",
    type=Registered("methods"),
    metavar="NAME",
    help="Training method: soar, standard, adversarial; see `soar-tf list methods`. "
    "[default: soar]",
)
@click.option(
    "--method-arg",
    "method_args",
    type=params.KeyValue(),
    multiple=True,
    help="Argument of the method, such as epsilon=8/255 or steps=7. Repeatable.",
)
@params.dataset_option
@params.data_dir_option
@params.image_size_option
@click.option(
    "--network",
    type=Registered("networks"),
    metavar="NAME|FILE",
    help="Network: cnn4, cnn2, mlp, resnet18, or a .keras file. [default: by data set]",
)
@click.option(
    "--network-arg",
    "network_args",
    type=params.KeyValue(),
    multiple=True,
    help="Argument of the network, such as width=0.5. Repeatable.",
)
@click.option(
    "--init-from",
    type=click.Path(),
    metavar="MODEL",
    help="Start from a run directory or a .keras file. [default: a new network]",
)
@click.option(
    "--pretrain-epochs",
    type=click.IntRange(min=0),
    help="Epochs of standard training first, for methods that fine-tune. [default: 24; digits: 30]",
)
@click.option(
    "--epochs", type=params.POSITIVE, help="Epochs of the method. [default: 15; digits: 60]"
)
@click.option(
    "--batch-size", type=params.POSITIVE, help="Images per step. [default: 128; digits: 64]"
)
@click.option(
    "--learning-rate",
    type=params.Number(),
    help="Peak learning rate of the method. [default: with sgd onecycle 0.05, fine-tuning 0.01; "
    "paper and constant 0.01, fine-tuning 0.002; with adam: 1e-3, fine-tuning 1e-4]",
)
@click.option(
    "--pretrain-learning-rate",
    type=params.Number(),
    help="Peak learning rate of standard training. [default: as for training from scratch]",
)
@click.option(
    "--lr-schedule",
    type=click.Choice(config_room.SCHEDULES),
    help="onecycle: warm-up and cosine; paper: two drops by 10. [default: onecycle]",
)
@click.option(
    "--optimizer", type=click.Choice(config_room.OPTIMIZERS), help="Optimizer. [default: sgd]"
)
@click.option("--weight-decay", type=params.Number(), help="Weight decay. [default: 2e-4]")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything. [default: 0]")
@click.option(
    "--limit", type=params.POSITIVE, help="Use the first N training images only. [default: all]"
)
@click.option(
    "--augment/--no-augment", default=None, help="Random crops and flips. [default: by data set]"
)
@click.option("--jit/--no-jit", default=None, help="Compile with XLA. [default: on a GPU only]")
@click.option(
    "--precision",
    type=click.Choice(config_room.PRECISIONS),
    help="Compute precision; curvature stays in float32. [default: float32]",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(),
    metavar="FILE",
    help="TOML file with any of these settings; flags win. [default: none]",
)
@click.option(
    "--workdir",
    type=click.Path(),
    required=True,
    metavar="DIR",
    help="Run directory. The same directory and settings resume.",
)
@click.option(
    "--evaluate",
    "evaluate_limit",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Attack the result on the first N test images at the end; 0: do not.",
)
@click.option(
    "--attack",
    "attacks",
    type=Registered("attacks"),
    multiple=True,
    metavar="NAME[:k=v,...]",
    help="Attack for --evaluate, see `soar-tf list attacks`. Repeatable. [default: fgsm, pgd20]",
)
@click.option("--verbose", type=click.IntRange(0, 2), default=1, show_default=True,
              help="0: silent, 1: progress bars, 2: one line an epoch.")  # fmt: skip
@params.json_option
def train(config_file, workdir, evaluate_limit, attacks, verbose, as_json, **flags):
    """Train a network with a method, and attack the result.

    A method that fine-tunes, such as soar, first trains a standard network (--pretrain-epochs),
    unless --init-from gives one. The run directory gets config.toml, log.csv, model.keras,
    saved_model/, manifest.json and, if there was a standard phase, standard.keras.

    Example: soar-tf train --method soar --dataset digits --workdir runs/digits
    """
    values = config_room.read_toml(config_file) if config_file else {}
    for name, value in flags.items():
        if name.endswith("_args"):
            values[name] = {**values.get(name, {}), **dict(value)}
        elif value is not None:
            values[name] = value
    config = config_room.TrainConfig(**values)

    load_tensorflow()
    from soar_tf import attacks as attacks_room
    from soar_tf.experiments.train import Experiment

    attacks = attacks or ("fgsm", "pgd20")
    for name in attacks:
        attacks_room.get(name)  # a mistake must not wait for the training's end
    experiment = Experiment(config)
    try:
        folder = experiment.run(workdir, verbose=verbose)
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command goes on after the last epoch.") from None
    result = {"workdir": str(folder)}
    if evaluate_limit:
        from soar_tf.experiments import summary

        result |= summary.attack_run(
            folder, experiment.dataset, limit=evaluate_limit, attacks=attacks, progress=progress
        )
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    if evaluate_limit:
        click.echo("\n" + summary_table(result))
    click.echo(f"Run directory: {folder}")


def summary_table(result):
    """The table that `train` prints, from its result as a dictionary."""
    rows = [
        [row["phase"], *(params.percent(row[column]) for column in result["columns"])]
        for row in result["rows"]
    ]
    threat = f"Linf {params.number_text(result['epsilon'])}"
    return "\n".join(
        [
            params.table(rows, ["accuracy", *result["columns"]]),
            f"{result['n']} {result['split']} images of {result['dataset']}, {threat}, "
            "pixels in [0, 1].",
            result["note"],
        ]
    )
