"""Catastrophic overfitting: which one-step methods collapse, and what prevents it at what cost.

    python -m benchmarks.collapse --data-dir DIR --epochs 30 --output collapse.json
    python -m benchmarks.collapse --data-dir DIR --epochs 30 --network cnn4 \\
        --only fast --only n-fgsm ... --output collapse-cnn4.json

By default the network is the small testbed of GradAlign's authors (arXiv:2007.02617): a single
convolution with 4 filters. Each variant trains from scratch, and after every epoch validation
images are attacked by PGD-20 and AutoAttack, so that the collapse shows; the batches' alignment of
gradients is logged beside it, with the alarm of `CatastrophicOverfitting`. At the end, test images
under both attacks, and the train step's time relative to Standard's. Nothing stops a training or
chooses an epoch. A row is written when it is done, a training goes on after its last epoch (the
alarm then counts from there): give the same command again.
"""

import argparse
import json
import math
import sys
import time
import tomllib
import warnings
from pathlib import Path

from benchmarks import study
from soar_tf.cli.startup import load_tensorflow

load_tensorflow()

import keras  # noqa: E402 (after the quiet import of TensorFlow)

import soar_tf  # noqa: E402
from soar_tf import files  # noqa: E402
from soar_tf.models.network_parts import normalized, with_logits  # noqa: E402
from soar_tf.runs import provenance  # noqa: E402
from soar_tf.runs.config import TrainConfig  # noqa: E402
from soar_tf.runs.experiment import Experiment  # noqa: E402
from soar_tf.validation import check_epsilon  # noqa: E402

TESTBED = "one-conv"
# The authors'. At 0.05 it ends at a constant answer.
RATES = {TESTBED: 0.003}
_SETTINGS = (
    *("dataset", "limit", "epochs", "batch_size", "network", "network_arg", "learning_rate"),
    *("epsilon", "warm_up", "seed", "attack_limit", "epoch_limit", "autoattack_every"),
)
SOAR = {"alpha": "ball", "init": "fgsm", "norm_clip": "none"}
# Weights of the penalties: the papers' at 16/255, and for SOAR GradAlign's and some around it.
VARIANTS = {
    "fgsm": ("n-fgsm", {"noise": 0}),
    "fast": ("fast", {}),
    "n-fgsm": ("n-fgsm", {}),
    "gradalign": ("gradalign", {"lambda_": 2.0}),
    "elle": ("elle", {"lambda_": 5000.0}),
    "elle-a": ("elle", {"lambda_": 4000.0, "adaptive": True}),
    "soar-cosine-0.5": ("soar", {**SOAR, "measure": "cosine", "lambda_": 0.5}),
    "soar-cosine-2": ("soar", {**SOAR, "measure": "cosine", "lambda_": 2.0}),
    "soar-cosine-8": ("soar", {**SOAR, "measure": "cosine", "lambda_": 8.0}),
    "soar-relative-0.5": ("soar", {**SOAR, "measure": "relative", "lambda_": 0.5}),
    "soar-relative-2": ("soar", {**SOAR, "measure": "relative", "lambda_": 2.0}),
    "soar-cosine-2-pgd1": (
        "soar",
        {**SOAR, "init": "pgd1", "measure": "cosine", "lambda_": 2.0},
    ),
    "soar-absolute": ("soar", {**SOAR, "norm_clip": "preset"}),
    "soar-paper": ("soar", {}),
    "adversarial-7": ("adversarial", {"steps": 7}),
}


def options_of(argv):
    """The parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--network", default=TESTBED, help=f"{TESTBED} or a registered network")
    parser.add_argument("--network-arg", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--epsilon", default="16/255")
    parser.add_argument(
        "--warm-up", type=float, metavar="EPOCHS", help="epsilon grows; default: a quarter of all"
    )
    parser.add_argument("--limit", type=int, help="training images; default: all")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, help=f"peak; default: 0.05, {TESTBED} 0.003")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attack-limit", type=int, default=1000, help="test images, at the end")
    parser.add_argument("--epoch-limit", type=int, default=200, help="validation images, per epoch")
    parser.add_argument("--autoattack-every", type=int, default=1, help="epochs")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--workdir", type=Path, help="runs; default: FILE.runs")
    parser.add_argument("--only", action="append", choices=VARIANTS, help="repeatable")
    parser.add_argument("--step-rounds", type=int, default=10, help="timed steps of each kind")
    options = parser.parse_args(argv)
    # At full strength from the first step on, the testbed learns to ignore the image.
    options.warm_up = options.epochs / 4 if options.warm_up is None else options.warm_up
    return options


def one_convolution(input_shape, num_classes, filters=4):
    """The testbed: one convolution, ReLU, and logits."""
    inputs, x = normalized(input_shape, 3)
    x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    return with_logits(inputs, keras.layers.Flatten()(x), num_classes, "one_conv")


class Alignment(soar_tf.callbacks.CatastrophicOverfitting):
    """Logs each epoch's mean alignment, and in which of its batches the alarm came (-1: in none).

    It never stops a training.
    """

    def __init__(self, data):
        super().__init__(data, "pgd5", threshold=1.0)
        self._seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self._seen, self._first = [], self._batches

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if "alignment" in (logs or {}):
            self._seen.append(float(logs["alignment"]))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        logs.pop("alignment", None)
        if self._seen:
            logs["mean_alignment"] = sum(self._seen) / len(self._seen)
            came = self.warned_batch is not None and self.warned_batch >= self._first
            logs["alarm_batch"] = self.warned_batch - self._first if came else -1


def train(options, folder, method, arguments):
    """Trains a variant, or goes on; returns its epochs, a list of dictionaries."""
    epsilon = check_epsilon(options.epsilon)
    if options.warm_up:
        epsilon = f"ramp(0, {epsilon}, epochs={options.warm_up:g})"
    network, network_args = options.network, dict(a.split("=", 1) for a in options.network_arg)
    if network == TESTBED:
        network = _testbed(options)
    config = TrainConfig(
        method=method,
        method_args={"epsilon": epsilon, **arguments},
        dataset=options.dataset,
        data_dir=options.data_dir,
        network=str(network),
        network_args=network_args,
        pretrain_epochs=0,
        epochs=options.epochs,
        batch_size=options.batch_size,
        # The same for all: methods of second derivatives would have a lower one.
        learning_rate=options.learning_rate or RATES.get(options.network, 0.05),
        limit=options.limit,
        seed=options.seed,
        validation_attack="pgd20",
        stop_below=0.0,
    )
    experiment = Experiment(config)
    held_out = experiment.dataset["validation"]
    experiment.callbacks += [
        Alignment(held_out),
        soar_tf.callbacks.RobustAccuracy(
            held_out,
            "autoattack",
            every=options.autoattack_every,
            limit=options.epoch_limit,
            name="autoattack",
        ),
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Catastrophic overfitting may be near")
        experiment.run(folder, verbose=0)
    rows = study.rows_of(folder / "log.csv")
    names = {
        "val_accuracy": "clean",
        "val_robust_accuracy": "pgd20",
        "val_autoattack_accuracy": "autoattack",
        **{name: name for name in ("loss", "penalty", "mean_alignment", "alarm_batch")},
    }
    return [
        {short: row[name] for name, short in names.items() if row.get(name) is not None}
        for row in rows
    ]


def _testbed(options):
    """The testbed's file, made once: every variant starts from the same weights."""
    path = _runs(options) / "one_conv.keras"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        loaded = soar_tf.datasets.load(options.dataset, data_dir=options.data_dir)
        keras.utils.set_random_seed(options.seed)
        one_convolution(loaded.image_shape, loaded.num_classes).save(path)
    return path


def _runs(options):
    return options.workdir or options.output.with_suffix(".runs")


def collapse(epochs):
    """The epoch, from 1 on, after which PGD-20 accuracy stays below half of its best; or `None`."""
    best = 0.0
    for number, row in enumerate(epochs, 1):
        fell = row["pgd20"] < 0.5 * best
        if fell and all(later["pgd20"] < 0.5 * best for later in epochs[number:]):
            return number
        best = max(best, row["pgd20"])
    return None


def alarm(epochs):
    """The epoch, from 1 on, in which the alarm came, or `None`."""
    came = (n for n, row in enumerate(epochs, 1) if row.get("alarm_batch", -1) >= 0)
    return next(came, None)


def measured(options, folder):
    """Test images under both attacks, and the step's cost."""
    report = folder / "report.json"
    data = ["--data-dir", options.data_dir] if options.data_dir else []
    study.command_line(
        *("evaluate", folder, "--attack", "pgd20", "--attack", "autoattack"),
        *("--dataset", options.dataset, *data, "--limit", options.attack_limit),
        *("--epsilon", options.epsilon, "--state", folder / "evaluation.state"),
        *("--output", report),
    )
    found = json.loads(report.read_text())
    config = tomllib.loads((folder / "config.toml").read_text())
    row = {"clean": found["clean_accuracy"], "n": found["n"]}
    row |= {attack["name"]: attack["robust_accuracy"] for attack in found["attacks"]}
    standard = study.timed_model(folder, {**config, "method": "standard"}, {})
    own = study.timed_model(folder, config, config["method_args"])
    return row | {"step_cost": study.median_ratio(own, standard, options.step_rounds)}


def table(report):
    """The rows as a Markdown table, after a sentence on what it shows."""
    settings = report["settings"]
    network = " ".join([settings["network"], *settings["network_arg"]])
    lines = [
        f"{settings['dataset']}, {network}, Linf {settings['epsilon']}, "
        f"{settings['limit'] or 'all'} training images, {settings['epochs']} epochs from scratch, "
        f"seed {settings['seed']}. Best and last epoch: validation images (PGD-20 on 1000, "
        f"AutoAttack on {settings['epoch_limit']}). Test: {settings['attack_limit']} images, last "
        "epoch. Collapse: the epoch after which PGD-20 accuracy stays below half of its best.",
        "",
        "| variant | best PGD-20 | last PGD-20 | last AutoAttack | collapse | alarm | test clean | "
        "test PGD-20 | test AutoAttack | step, Standard = 1 |",
        "|" + " --- |" + " ---: |" * 9,
    ]
    for name, row in report["rows"].items():
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} |" + " - |" * 8)
            continue
        epochs = row["epochs"]
        shares = [max(e["pgd20"] for e in epochs), epochs[-1]["pgd20"], epochs[-1]["autoattack"]]
        test = [row[key] for key in ("clean", "pgd20", "autoattack")]
        cells = [f"{100 * share:.1f} %" for share in shares]
        cells += [str(row[key] or "-") for key in ("collapse_epoch", "alarm_epoch")]
        cells += [f"{100 * share:.1f} %" for share in test]
        lines.append(f"| {name} | " + " | ".join([*cells, f"{row['step_cost']:.2f}"]) + " |")
    return "\n".join([*lines, ""])


def main(argv=None):
    """Runs the study."""
    options = options_of(argv)
    settings = {name: getattr(options, name) for name in _SETTINGS}
    report = {"settings": settings, "environment": provenance.environment(), "rows": {}}
    if options.output.exists():
        stored = json.loads(options.output.read_text())
        if stored["settings"] != settings:
            sys.exit(f"{options.output} holds a study of other settings; use another --output.")
        report["rows"] = stored["rows"]
    for name in options.only or VARIANTS:
        method, arguments = VARIANTS[name]
        if report["rows"].get(name, {}).get("arguments") == {"method": method, **arguments}:
            continue
        print(f"== {name}", file=sys.stderr, flush=True)
        begun, folder = time.monotonic(), _runs(options) / name
        row = {
            "arguments": {"method": method, **arguments},
            "git_commit": report["environment"]["git_commit"],
        }
        try:
            epochs = train(options, folder, method, arguments)
            found = {"collapse_epoch": collapse(epochs), "alarm_epoch": alarm(epochs)}
            row |= {"epochs": epochs, **found, **measured(options, folder)}
        except soar_tf.errors.RunError as error:
            row["failed"] = str(error)
        row["seconds"] = round(time.monotonic() - begun, 1)
        report["rows"][name] = row
        order = {known: place for place, known in enumerate(VARIANTS)}
        report["rows"] = dict(
            sorted(report["rows"].items(), key=lambda item: order.get(item[0], math.inf))
        )
        files.write_json(options.output, report)
        files.write_text(options.output.with_suffix(".md"), table(report))
    print(table(report))


if __name__ == "__main__":
    main()
