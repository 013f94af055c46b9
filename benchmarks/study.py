"""What the training benchmarks share: rows that train, attack and time one variant each.

A variant is trained and attacked by the command line, as a user would, in processes of its own. Its
row is written as soon as it is done; the same command goes on where it was stopped.
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from soar_tf.cli.startup import load_tensorflow

load_tensorflow()

import keras  # noqa: E402 (after the quiet import of TensorFlow)
import numpy as np  # noqa: E402

import soar_tf  # noqa: E402
from soar_tf import files  # noqa: E402
from soar_tf.datasets import defaults  # noqa: E402
from soar_tf.runs import provenance  # noqa: E402

_SETTINGS = (
    "dataset",
    "limit",
    "epochs",
    "batch_size",
    "attack_limit",
    "network",
    "network_arg",
    "learning_rate",
    "seed",
)
SECONDS = 0.3  # of one timing
COLUMNS = {
    "clean": "clean",
    "pgd20": "PGD-20",
    "autoattack": "AutoAttack",
    "transfer": "transfer",
}


def arguments(description):
    """The options that both benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--network", help="default: by data set")
    parser.add_argument("--network-arg", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--limit", type=int, help="training images; default: all")
    parser.add_argument("--epochs", type=int, default=5, help="of each variant")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float, help="peak; default: soar-tf train's")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings")
    parser.add_argument("--attack-limit", type=int, default=1000, help="test images attacked")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--workdir", type=Path, help="runs; default: FILE.runs")
    parser.add_argument("--only", action="append", help="a variant's name; repeatable")
    parser.add_argument("--step-rounds", type=int, default=10, help="timed steps of each kind")
    return parser


class Study:
    """A result file that grows by a row a variant.

    Args:
        options: The parsed options.
        init_from: Run directory or `.keras` file that every variant starts from, or `None`.
        source: Model for the transfer column, or `None` for none.
        caption: What the table shows, a sentence; `None`: variants of one standard network.
    """

    def __init__(self, options, init_from=None, source=None, caption=None):
        self.options, self.init_from, self.source = options, init_from, source
        self.runs = options.workdir or options.output.with_suffix(".runs")
        settings = {name: getattr(options, name) for name in _SETTINGS}
        self.report = {"settings": settings, "environment": provenance.environment(), "rows": {}}
        if caption is not None:
            self.report["caption"] = caption
        if options.output.exists():
            stored = json.loads(options.output.read_text())
            if stored["settings"] != settings:
                sys.exit(f"{options.output} holds a study of other settings; use another --output.")
            self.report["rows"] = stored["rows"]
        self._standard = None

    def add(self, name, train_arguments, *, starts_from="standard"):
        """Trains, attacks and times a variant, unless its row is there already.

        Args:
            name: The variant's name.
            train_arguments: Flags of `soar-tf train`.
            starts_from: `"standard"`, the network that `init_from` names; a variant's name; or
                `None`, from scratch.
        """
        if self.options.only and name not in self.options.only:
            return
        known = self.report["rows"].pop(name, None)
        if known is not None and known["arguments"] == train_arguments:
            self.report["rows"][name] = known  # again the last: rows stand in the variants' order
            return
        print(f"== {name}: {' '.join(train_arguments)}", file=sys.stderr, flush=True)
        folder = self.runs / name
        start = []
        if starts_from is not None:
            path = self.init_from if starts_from == "standard" else self.runs / starts_from
            start = ["--init-from", str(path)]
        begun = time.monotonic()
        failed = train(self.options, folder, [*start, *train_arguments])
        row = {
            "arguments": train_arguments,
            "starts_from": starts_from,
            "seconds": round(time.monotonic() - begun, 1),
            "git_commit": self.report["environment"]["git_commit"],  # calls may differ
        }
        if failed:
            row["failed"] = failed
        else:
            try:
                row |= self.attacked(folder)
            except subprocess.CalledProcessError as error:
                sys.exit(f"{' '.join(error.cmd)}\n{error.stderr}")
            row["step_cost"] = self.step_cost(folder)
        self.report["rows"][name] = row
        self.write()

    def attacked(self, folder):
        """Clean accuracy, accuracy under each attack, and under transferred examples."""
        options, report = self.options, folder / "report.json"
        common = ["--dataset", options.dataset, "--limit", str(options.attack_limit)]
        common += ["--data-dir", options.data_dir] if options.data_dir else []
        attacks = ["--attack", "pgd20", "--attack", "autoattack"]
        state = ["--state", folder / "evaluation.state"]
        command_line("evaluate", folder, *attacks, *common, *state, "--output", report)
        found = json.loads(report.read_text())
        row = {"clean": found["clean_accuracy"], "n": found["n"]}
        row |= {attack["name"]: attack["robust_accuracy"] for attack in found["attacks"]}
        if self.source is not None:
            result = command_line(
                "transfer",
                "--source",
                self.source,
                "--target",
                folder,
                "--attack",
                "pgd20",
                *common,
                "--output",
                folder / "transfer",
                "--json",
            )
            accuracy = json.loads(result)["accuracy"][str(self.source)]
            row["transfer"] = accuracy[str(folder)]
        return row

    def step_cost(self, folder):
        """A train step's time relative to Standard's: the median over interleaved steps."""
        config = tomllib.loads((folder / "config.toml").read_text())
        if self._standard is None:
            plain = {**config, "method": "standard", "awp": None}
            self._standard = timed_model(folder, plain, {})
        own = timed_model(folder, config, config.get("method_args", {}))
        return median_ratio(own, self._standard, self.options.step_rounds)

    def write(self):
        """Writes the result file, and the table beside it."""
        files.write_json(self.options.output, self.report)
        files.write_text(self.options.output.with_suffix(".md"), table(self.report))


def train(options, folder, more):
    """Runs `soar-tf train`; returns what it said if it failed, `None` if it did not."""
    command = ["train", "--dataset", options.dataset, "--epochs", options.epochs]
    for flag in ("data_dir", "limit", "batch_size", "learning_rate", "seed"):
        if (value := getattr(options, flag)) is not None:
            command += [f"--{flag.replace('_', '-')}", value]
    if "--init-from" not in more:
        command += ["--network", options.network] if options.network else []
        command += [part for item in options.network_arg for part in ("--network-arg", item)]
    command += [*more, "--evaluate", 0, "--verbose", 0, "--workdir", folder]
    try:
        command_line(*command)
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:
            sys.exit(f"soar-tf {' '.join(map(str, command))}\n{error.stderr}")
        return error.stderr.strip().splitlines()[-1]


def command_line(*arguments):
    """Runs `soar-tf ARGUMENTS` in a process of its own; returns its stdout."""
    command = [sys.executable, "-m", "soar_tf.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def median_ratio(own, other, rounds):
    """The median ratio of two timings that take turns."""
    return round(statistics.median(own() / other() for _ in range(rounds)), 3)


def rows_of(path):
    """The rows of a run's log, numbers as floats; absent ones as `None`."""
    with open(path, newline="") as file:
        return [
            {k: None if v == "" else v if k == "phase" else float(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


def timed_model(folder, config, method_args):
    """A function that takes some train steps on random images, and returns a step's seconds."""
    network = keras.saving.load_model(folder / "model.keras")
    method = soar_tf.methods.get(config["method"], **method_args).at(0, steps_per_epoch=1)
    awp = soar_tf.methods.last_value(config.get("awp"))
    model = soar_tf.RobustModel(network, method, awp=awp)
    model.compile(keras.optimizers.SGD(1e-6))
    generator, size = np.random.default_rng(0), config["batch_size"]
    x = generator.uniform(0, 1, (size, *network.input_shape[1:])).astype("float32")
    y = generator.integers(0, network.output_shape[-1], size)

    # A penalty in every k-th step only: the mean of whole periods.
    period = getattr(method, "penalty_every", 1)

    def steps(periods):
        begun = time.perf_counter()
        for _ in range(periods * period):
            model.train_on_batch(x, y)
        return (time.perf_counter() - begun) / (periods * period)

    steps(2)
    # Long enough for the clock: single steps of small networks are mostly noise.
    enough = math.ceil(SECONDS / (steps(1) * period))
    return lambda: steps(enough)


def table(report):
    """The rows as a Markdown table, after a sentence on what it shows."""
    rows = report["rows"]
    columns = [key for key in COLUMNS if any(key in row for row in rows.values())]
    lines = [
        "| variant | " + " | ".join(COLUMNS[key] for key in columns) + " | step, Standard = 1 |",
        "|" + " --- |" + " ---: |" * (len(columns) + 1),
    ]
    for name, row in rows.items():
        shares = [f"{100 * row[key]:.1f} %" if key in row else "-" for key in columns]
        cost = f"{row['step_cost']:.2f}" if "step_cost" in row else row.get("failed", "-")
        lines.append("| " + " | ".join([name + _mark(row), *shares, cost]) + " |")
    return "\n".join([_caption(report), "", *lines, ""])


def _mark(row):
    """What a variant started from, if not from the standard network."""
    if "--epochs" in row["arguments"]:
        return " *"
    start = row.get("starts_from", "standard")
    return "" if start in ("standard", None) else f" (from {start})"


def _caption(report):
    """What the table shows."""
    if "caption" in report:
        return report["caption"]
    rows, settings = report["rows"], report["settings"]
    epsilon = defaults.recipe(settings["dataset"])["epsilon"]
    images = settings["limit"] or "all"
    n = max((row["n"] for row in rows.values() if "n" in row), default=0)
    scratch = {
        row["arguments"][row["arguments"].index("--epochs") + 1]
        for row in rows.values()
        if "--epochs" in row["arguments"]
    }
    scratch = f" (*: {', '.join(sorted(scratch))} epochs from scratch)" if scratch else ""
    network = " ".join(part for part in (settings["network"], *settings["network_arg"]) if part)
    return (
        f"{settings['dataset']}{f', {network}' if network else ''}, {images} training images, "
        f"{settings['epochs']} epochs each from one standard network{scratch}; {n} test images, "
        f"Linf {epsilon:.4g}, seed {settings['seed']}. "
        "Step: the median over interleaved train steps."
    )
