"""`soar-tf train`."""

import json
import os

import click

from soar_tf import registry
from soar_tf.cli import params, settings
from soar_tf.cli.completion import Registered
from soar_tf.cli.progress import drawer
from soar_tf.cli.startup import load_tensorflow, start_again, stop_on_sigterm
from soar_tf.errors import RunError
from soar_tf.formatting import percent, threat_text
from soar_tf.runs import cluster as clusters
from soar_tf.runs import presets
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.config_file import read_toml
from soar_tf.validation import each_key_once


@click.command(short_help="Train a network robustly; resumes where it was stopped.")
@settings.options(TrainConfig, ["method"], overlay=True)
@click.option(
    "--preset",
    metavar="NAME",
    help="A method with arguments and settings that proved good; see `soar-tf list presets`. "
    "Other flags win. [default: none]",
)
@settings.options(TrainConfig, but=["method"], overlay=True)
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
    type=Registered(registry.ATTACKS),
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
def train(config_file, preset, evaluate_limit, attacks, as_json, strategy, hosts, rank, **options):
    """Train a network with a method, and attack the result.

    A method that fine-tunes, such as soar, first trains a standard network (--pretrain-epochs),
    unless --init-from gives one. The run directory gets config.toml, log.csv, model.keras,
    saved_model/, manifest.json and, if there was a standard phase, standard.keras.

    Example: soar-tf train --method soar --dataset digits --workdir runs/digits
    """
    config = _config(config_file, preset, settings.given(TrainConfig, options))
    cluster = clusters.read(strategy, hosts, rank, os.environ.get("TF_CONFIG"))
    load_tensorflow()
    from soar_tf.attacks import get as get_attack
    from soar_tf.reports import summary

    attacks = attacks or ("fgsm", "pgd20")
    for name in attacks:
        get_attack(name)  # a mistake must not wait for the training's end
    folder, dataset = _run(config, cluster, judged=evaluate_limit > 0, **options)
    if folder is None:
        click.echo("Done; rank 0 has the results.", err=True)
        return
    result = {"workdir": str(folder)}
    if evaluate_limit:
        result |= summary.attack_run(
            folder,
            dataset,
            limit=evaluate_limit,
            attacks=attacks,
            progress=drawer(options["verbose"]),
        )
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    if evaluate_limit:
        click.echo("\n" + summary_table(result))
    click.echo(f"Run directory: {folder}")


def _config(config_file, preset, given):
    """The configuration: flags win over the file, the file over the preset."""
    values = read_toml(config_file) if config_file else {}
    for name, value in given.items():
        if name.endswith("_args"):
            once = each_key_once(value, " ".join("=".join(pair) for pair in value))
            values[name] = {**values.get(name, {}), **once}
        else:
            values[name] = list(value) if isinstance(value, tuple) else value
    return TrainConfig(**presets.merged(preset, values))


def _run(
    config,
    cluster,
    *,
    judged,
    workdir,
    verbose,
    connect_timeout,
    restarts,
    allow_mixed_environment,
):
    """Trains; the run directory, `None` where another process has it, and the data set."""
    from soar_tf.reports import summary
    from soar_tf.runs.experiment import Experiment
    from soar_tf.training import strategies

    try:
        strategy = strategies.make(cluster, timeout=connect_timeout)
        stop_on_sigterm()  # TensorFlow has taken the signal for several hosts
        experiment = Experiment(config, strategy)
        if judged:
            summary.judged_split(experiment.dataset)  # refuses before the training
        folder = experiment.run(
            workdir, verbose=verbose, allow_mixed_environment=allow_mixed_environment
        )
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command resumes from the last checkpoint.") from None
    except strategies.WorkerLost as error:
        start_again(error, restarts)
    return folder, experiment.dataset


def summary_table(result):
    """The table that `train` prints, from its result as a dictionary."""
    rows = [
        [row["phase"], *(percent(row[column]) for column in result["columns"])]
        for row in result["rows"]
    ]
    threats: dict[str, list[str]] = {}
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
