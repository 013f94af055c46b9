"""Attacks: time and robust accuracy beside other libraries, on the same networks and images.

    python -m benchmarks.attacks --network standard=runs/std/model.keras ... \\
        --data-dir DIR --peers-python peers/bin/python

`pgd20` stops at the first misclassified iterate of an example; `pgd20 full` takes every step, as
the others do. AutoAttack has a benchmark of its own, `benchmarks.autoattack_reference`.
"""

import functools
import pathlib
import tempfile

import numpy as np

from benchmarks import common
from benchmarks.tf_peer import BATCH, EPSILON, batches

KINDS = ("fgsm", "pgd20", "l2pgd100")


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "attacks")
    parser.set_defaults(repeats=5)
    parser.add_argument("--network", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--data-dir", help="prepared tensorflow-datasets with cifar10")
    parser.add_argument("--count", type=int, default=1000, help="test images")
    parser.add_argument("--attacks", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--peers-python", help="Python with Foolbox, ART and CleverHans")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Times the attacks, prints the table, writes the figures."""
    import soar_tf

    options = parse(arguments)
    figures = {"machine": common.machine(), "count": options.count, "batch_size": BATCH}
    figures["networks"] = {}
    test = soar_tf.datasets.load("cifar10", data_dir=options.data_dir, splits=("test",))["test"]
    test = test.take(options.count)
    with tempfile.TemporaryDirectory() as folder:
        images = pathlib.Path(folder) / "images.npz"
        x, y = test.float_images(), test.labels.astype("int64")
        np.savez(images, x=x, y=y)
        for entry in options.network:
            name, _, path = entry.partition("=")
            figures["networks"][name] = measure(path, images, x, y, options, figures)
            print(table(name, figures["networks"][name]), flush=True)
    common.write(options.json, figures)


def measure(path, images, x, y, options, figures):
    """One network's figures."""
    import keras

    network = keras.models.load_model(path, compile=False)
    functions = ours(network, x, y, options.attacks)
    peer = None
    if options.peers_python:
        peer = common.Peer(options.peers_python, "tf_peer", path, images)
        figures["peer_versions"] = peer.hello["versions"]
        for name in peer.hello["functions"]:
            if name.split()[-1] in options.attacks:
                functions[name] = functools.partial(peer, name)
    accuracies = {}

    def recording(name, function):
        def run():
            answer = function()
            accuracies[name] = answer["accuracy"]
            return answer

        return run

    try:
        named = {name: recording(name, function) for name, function in functions.items()}
        times = common.interleaved(named, options.repeats)
    finally:
        if peer is not None:
            peer.close()
    return {name: {**run, "accuracy": accuracies[name]} for name, run in times.items()}


def ours(network, x, y, kinds):
    """Our attacks as functions that report times and accuracy."""
    import soar_tf

    class Full(soar_tf.attacks.PGD):
        """Takes every step for every example."""

        def search(self, logits_fn, x, y, keys):
            return self.perturb(logits_fn, x, y, keys)

    made = {
        "fgsm": soar_tf.attacks.FGSM(EPSILON["linf"]),
        "pgd20": soar_tf.attacks.PGD(EPSILON["linf"], steps=20),
        "l2pgd100": soar_tf.attacks.PGD(EPSILON["l2"], "l2", steps=100),
        "pgd20 full": Full(EPSILON["linf"], steps=20),
    }
    return {
        f"soar_tf {name}": run(network, attack, x, y)
        for name, attack in made.items()
        if name.split()[0] in kinds
    }


def run(network, attack, x, y):
    """A function that attacks all images once."""

    def once():
        found = []
        times = common.timed(
            lambda: found.extend(attack(network, *batch).numpy() for batch in batches(x, y))
        )
        predicted = network.predict(np.concatenate(found), batch_size=BATCH, verbose=0)
        return {**times, "accuracy": 100 * float(np.mean(predicted.argmax(1) == y))}

    return once


def table(name, times):
    """The figures of a network as Markdown; ratios are CPU and wall time over ours."""
    lines = [
        f"### {name}",
        "",
        "| attack | robust % | wall s | CPU s | wall over ours | CPU over ours |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        own = times.get(f"soar_tf {kind}")
        for key, run in times.items():
            if own is None or kind not in key.split():
                continue
            ratios = [f"{run[unit] / own[unit]:.2f}" for unit in ("wall", "cpu")]
            seconds = [f"{run[unit]:.2f}" for unit in ("wall", "cpu")]
            lines.append(
                "| " + " | ".join([key, f"{run['accuracy']:.1f}", *seconds, *ratios]) + " |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
