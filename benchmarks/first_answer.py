"""How long a user waits for the first answer, in units of importing TensorFlow and Keras.

    python -m benchmarks.first_answer --data-dir DIR

Each round starts a process for each of: the bare import; `soar-tf evaluate` with PGD-20 on 100
images and with AutoAttack on 10; the first step of `fit` with SOAR on `cnn4` and on MobileNetV2.
Ratios are medians over the rounds. Processor seconds include those of all threads. `--before` takes
another checkout of the repository, which is timed in the same rounds.
"""

import functools
import os
import resource
import statistics
import subprocess
import sys
import time

from benchmarks import common

EVALUATE = ["-m", "soar_tf.cli", "evaluate", "zoo:cifar10-cnn4-robust", "--data-dir"]
TARGETS = {"pgd20": 1.7, "autoattack": 3.2}
FIRST_STEP = """
import keras, numpy as np, soar_tf
network = {network}
model = soar_tf.RobustModel(network, "soar")
model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
x = np.random.default_rng(0).uniform(0, 1, (32, 32, 32, 3)).astype("float32")
model.fit(x, np.arange(32) % 10, batch_size=32, epochs=1, verbose=0)
"""
NETWORKS = {
    "cnn4": "soar_tf.networks.cnn4(input_shape=(32, 32, 3))",
    "mobilenet": "keras.applications.MobileNetV2("
    "(32, 32, 3), weights=None, classes=10, classifier_activation=None)",
}


def commands(data_dir):
    """`{name: arguments of the interpreter}`."""
    evaluate = [*EVALUATE, data_dir]
    return {
        "import": ["-c", "import tensorflow, keras"],
        "pgd20": [*evaluate, "--attack", "pgd20", "--limit", "100"],
        "autoattack": [*evaluate, "--attack", "autoattack", "--limit", "10"],
        **{f"fit {name}": ["-c", FIRST_STEP.format(network=n)] for name, n in NETWORKS.items()},
    }


def run(arguments, checkout=common.ROOT):
    """Wall and processor seconds of a new process in a checkout."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu}


def main(arguments=None):
    """Times all, prints the table, writes the figures."""
    parser = common.parser(__doc__.splitlines()[0], "first_answer")
    parser.add_argument("--data-dir", required=True, help="prepared tensorflow-datasets")
    parser.add_argument("--only", nargs="+", help="names to time beside the import")
    parser.add_argument("--before", metavar="DIR", help="another checkout to compare with")
    options = parser.parse_args(arguments)
    wanted = {}
    for name, command in commands(os.path.abspath(options.data_dir)).items():
        if name == "import" or not options.only or name in options.only:
            wanted[name] = functools.partial(run, command)
            if options.before and name != "import":
                wanted[f"{name} before"] = functools.partial(run, command, options.before)
    machine = common.machine()
    seen = common.interleaved(wanted, options.repeats, warm_up=False)
    for entry in seen.values():
        for unit in ("wall", "cpu"):
            pairs = zip(entry[f"{unit}_all"], seen["import"][f"{unit}_all"], strict=True)
            entry[f"{unit}_ratio"] = statistics.median(own / bare for own, bare in pairs)
    figures = {"machine": machine, "repeats": options.repeats, "targets": TARGETS, "runs": seen}
    print(table(figures))
    common.write(options.json, figures)


def table(figures):
    """The figures as Markdown."""
    lines = [
        "| process | wall, s | CPU, s | wall / import | CPU / import | at most |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in figures["runs"].items():
        cells = [f"{entry[unit]:.1f}" for unit in ("wall", "cpu")]
        cells += [f"{entry[f'{unit}_ratio']:.2f}" for unit in ("wall", "cpu")]
        cells.append(str(figures["targets"].get(name, "")))
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
