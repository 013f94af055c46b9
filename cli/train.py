"""`soar-tf train`."""

import json
import os

import click

from soar_tf.cli import params
from soar_tf.cli.completion import Model, Registered
from soar_tf.cli.progress import drawer
from soar_tf.cli.rates import learning_rate_options
from soar_tf.cli.startup import load_tensorflow, start_again, stop_on_sigterm
from soar_tf.errors import RunError
from soar_tf.formatting import percent, threat_text
from soar_tf.runs import cluster as clusters
from soar_tf.runs import presets
from soar_tf.runs.config import (
    MONITORS,
    OPTIMIZERS,
    WEIGHT_DECAY_TYPES,
    TrainConfig,
)
from soar_tf.runs.config_file import read_toml
from soar_tf.validation import PRECISIONS, each_key_once


@click.command(short_help="Train a network robustly; resumes where it was stopped.")
@click.option(
    "--method",
    type=Registered("methods"),
    metavar="NAME",
    help="Training method: soar, standard, adversarial; see `soar-tf list methods`. "
    "[default: soar]",
)
@click.option(
    "--preset",
    metavar="NAME",
    help="A method with arguments and settings that proved good; see `soar-tf list presets`. "
    "Other flags win. [default: none]",
)
@click.option(
    "--method-arg",
    "method_args",
    type=params.KeyValue(),
    multiple=True,
    help="Argument of the method, such as epsilon=8/255 or steps=7, or a schedule, such as "
    "'lambda_=ramp(0, 0.5, epochs=5)' or 'h=stairs(.1, .4, .8, 1.8, 3)'. Repeatable.",
)
@params.dataset_option
@params.data_dir_option
@params.image_size_option
@params.reading_options
@click.option(
    "--network",
    type=Registered("networks"),
    metavar="NAME|FILE",
    help="Network: cnn4, cnn2, mlp, resnet18, preact_resnet18, wide_resnet, or a .keras file. "
    "[default: by data set]",
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
    type=Model(),
    metavar="MODEL",
    help="Start from a run directory, a .keras file or zoo:NAME. [default: a new network]",
)
@click.option(
    "--pixel-range",
    type=params.Number(),
    metavar="WHITE",
    help="The value that white has for a .keras file of --network or --init-from that takes other "
    "pixels than [0, 1], such as 255. [default: 1]",
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
    "--micro-batch",
    type=params.POSITIVE,
    metavar="N",
    help="Put at most N images through the network together, to save memory; a step still takes "
    "the whole batch. [default: all]",
)
@learning_rate_options
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="Optimizer. [default: sgd]")
@click.option("--weight-decay", type=params.Number(), help="Weight decay. [default: 2e-4]")
@click.option(
    "--weight-decay-type",
    type=click.Choice(WEIGHT_DECAY_TYPES),
    help="decoupled: off the weights, outside momentum, as in Keras; coupled: added to the "
    "gradient, as in most papers. With sgd's momentum of 0.9 the coupled one is 1/(1 - 0.9) = 10 "
    "times stronger at the same number. [default: decoupled]",
)
@click.option(
    "--label-smoothing",
    type=params.Number(),
    help="Share of the label's weight spread over all classes. [default: 0]",
)
@click.option(
    "--ema",
    type=params.Number(),
    metavar="MOMENTUM",
    help="Average the weights over steps, such as 0.999; the average is validated and kept. "
    "[default: none]",
)
@click.option(
    "--awp",
    type=params.NumberOrSchedule(),
    metavar="SIZE",
    help="Adversarial weight perturbation: take each gradient where every kernel is moved up its "
    "gradient by this share of its length, such as 0.01, or by a schedule. Nearly doubles a step. "
    "[default: none]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything. [default: 0]")
@params.limit_option("training images")
@click.option(
    "--validation-images",
    type=click.IntRange(min=0),
    metavar="N",
    help="Set so many training images apart for validation; 0: train on all of them. "
    "[default: a tenth, where the data set has no validation split]",
)
@click.option(
    "--augment/--no-augment", default=None, help="Random crops and flips. [default: by data set]"
)
@click.option(
    "--cutout",
    type=params.POSITIVE,
    metavar="PIXELS",
    help="Lay a grey square of this side over each training image, anew in every epoch. "
    "[default: none]",
)
@click.option(
    "--mixup",
    type=params.Number(),
    metavar="A",
    help="Mix training images and their labels in pairs, in shares drawn from Beta(A, A), such as "
    "0.2; comes after cropping and cutout. [default: none]",
)
@click.option("--jit/--no-jit", default=None, help="Compile with XLA. [default: on a GPU only]")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Compute precision of training; curvature and the saved network stay in float32. "
    "[default: float32]",
)
@click.option(
    "--early-stopping",
    type=params.POSITIVE,
    metavar="PATIENCE",
    help="End the method's phase after so many epochs without a better --monitor. [default: never]",
)
@click.option(
    "--keep-best/--keep-last",
    default=None,
    help="The result is the epoch with the best --monitor, or the last. [default: the last]",
)
@click.option(
    "--stop-below",
    type=params.Number(),
    metavar="SHARE",
    help="End the method's phase, with its best epoch, once --monitor is below this share of its "
    "best. [default: one-step methods: 0.5; others: never]",
)
@click.option(
    "--monitor",
    type=click.Choice(MONITORS),
    help="Figure on validation data for the three above. [default: val_robust_accuracy with "
    "--validation-attack, else val_accuracy]",
)
@click.option(
    "--validation-attack",
    metavar="NAME[:k=v,...]",
    help="Attack 1000 validation images after every epoch and log val_robust_accuracy. "
    "[default: one-step methods: pgd5; others: none]",
)
@click.option(
    "--validation-limit",
    type=params.POSITIVE,
    metavar="N",
    help="After each epoch, look at N validation images only: a random draw, always the same. "
    "[default: all; 1000 for --validation-attack]",
)
@params.checkpoint_every_option
@click.option(
    "--deterministic/--not-deterministic",
    default=None,
    help="Let TensorFlow refuse what could give other bits. [default: not]",
)
@click.option(
    "--allow-mixed-environment",
    is_flag=True,
    help="Go on with a run begun under other versions, threads or processor flags.",
)
@click.option(
    "--config",
    "config_file",
    type=params.PathName(),
    metavar="FILE",
    help="TOML file with any of these settings; flags win. [default: none]",
)
@click.option(
    "--workdir",
    type=params.PathName(),
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
    help="Attack the result on N test images at the end, chosen as by --limit; 0: do not.",
)
@click.option(
    "--attack",
    "attacks",
    type=Registered("attacks"),
    multiple=True,
    metavar="NAME[:k=v,...]",
    help="Attack for --evaluate, see `soar-tf list attacks`. Repeatable. [default: fgsm, pgd20]",
)
@click.option(
    "--verbose",
    type=click.IntRange(0, 2),
    default=1,
    show_default=True,
    help="0: silent, 1: progress bars, 2: one line an epoch.",
)
@params.cluster_options
@params.json_option
def train(
    config_file,
    preset,
    workdir,
    evaluate_limit,
    attacks,
    verbose,
    as_json,
    strategy,
    hosts,
    rank,
    connect_timeout,
    restarts,
    allow_mixed_environment,
    **flags,
):
    """Train a network with a method, and attack the result.

    A method that fine-tunes, such as soar, first trains a standard network (--pretrain-epochs),
    unless --init-from gives one. The run directory gets config.toml, log.csv, model.keras,
    saved_model/, manifest.json and, if there was a standard phase, standard.keras.

    Example: soar-tf train --method soar --dataset digits --workdir runs/digits
    """
    values = read_toml(config_file) if config_file else {}
    for name, value in flags.items():
        if name.endswith("_args"):
            given = each_key_once(value, " ".join("=".join(pair) for pair in value))
            values[name] = {**values.get(name, {}), **given}
        elif value not in (None, ()):
            values[name] = list(value) if isinstance(value, tuple) else value
    config = TrainConfig(**presets.merged(preset, values))

    cluster = clusters.read(strategy, hosts, rank, os.environ.get("TF_CONFIG"))

    load_tensorflow()
    from soar_tf.attacks import get as get_attack
    from soar_tf.reports import summary
    from soar_tf.runs.experiment import Experiment
    from soar_tf.training import strategies

    attacks = attacks or ("fgsm", "pgd20")
    for name in attacks:
        get_attack(name)  # a mistake must not wait for the training's end
    try:
        made = strategies.make(cluster, timeout=connect_timeout)
        stop_on_sigterm()  # TensorFlow has taken the signal for several hosts
        experiment = Experiment(config, made)
        if evaluate_limit:
            summary.judged_split(experiment.dataset)  # refuses before the training
        folder = experiment.run(
            workdir, verbose=verbose, allow_mixed_environment=allow_mixed_environment
        )
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command resumes from the last checkpoint.") from None
    except strategies.WorkerLost as error:
        start_again(error, restarts)
    if folder is None:
        click.echo("Done; rank 0 has the results.", err=True)
        return
    result = {"workdir": str(folder)}
    if evaluate_limit:
        result |= summary.attack_run(
            folder,
            experiment.dataset,
            limit=evaluate_limit,
            attacks=attacks,
            progress=drawer(verbose),
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
        [row["phase"], *(percent(row[column]) for column in result["columns"])]
        for row in result["rows"]
    ]
    threats = {}
    # Results of version 0.1 are all of the one linf ball that they name.
    stored = result.get("threats") or {"all": threat_text("linf", result["epsilon"])}
    for attack, text in stored.items():
        threats.setdefault(text, []).append(attack)
    threat = "; ".join(f"{', '.join(attacks)}: {text}" for text, attacks in threats.items())
    if len(threats) == 1:
        threat = next(iter(threats))
    return "\n".join(
        [
            params.table(rows, ["accuracy", *result["columns"]]),
            f"{result['n']} {result['split']} images of {result['dataset']}, {threat}, "
            "pixels in [0, 1].",
            result["note"],
        ]
    )
