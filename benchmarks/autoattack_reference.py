"""Compares AutoAttack with its authors' code, component by component, on one or more networks.

The two implementations run in two Python environments (benchmarks/requirements-torch.txt), on the
same weights and images, with the same settings, each with all images in one batch:

    python -m benchmarks.autoattack_reference --network standard=std.keras soar=soar.keras \\
        --data-dir DIR --torch-python reference/bin/python --count 500 --norms linf l2

A network is a Keras file of rescaling, convolution, max-pooling, flatten, dense, ReLU layers in a
chain. Robust accuracies are in per cent of all images; each component attacks the correctly
classified images by itself. Every component is written to the JSON file as soon as both sides have
run it, and the same command goes on after the last one. Times include tracing. On a machine with
other jobs compare the processor times, with one thread: waiting threads of PyTorch spin, and wall
time is the scheduler's.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks import common

COMPONENTS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "autoattack")
EPSILON = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def parse(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--images", help="NPZ file with x and y; default: CIFAR-10 test images")
    parser.add_argument("--data-dir", help="prepared tensorflow-datasets with cifar10")
    parser.add_argument("--torch-python", required=True, help="Python with pyautoattack")
    parser.add_argument("--count", type=int, default=500, help="number of images")
    parser.add_argument("--norms", nargs="+", choices=EPSILON, default=["linf", "l2"])
    parser.add_argument("--epsilon", type=float, help="radius; default: 8/255, 0.5 and 12")
    parser.add_argument("--components", nargs="+", choices=COMPONENTS, default=COMPONENTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads of either side")
    parser.add_argument("--json", default=str(common.RESULTS / "autoattack.json"))
    parser.add_argument("--run-reference", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def record(correct, times):
    """One component's figures."""
    accuracy = 100 * float(np.mean(correct))
    return {"correct": [bool(value) for value in correct], "accuracy": accuracy, **times}


def load_images(options):
    """The images and labels to attack."""
    if options.images:
        arrays = np.load(options.images)
        return arrays["x"][: options.count], arrays["y"][: options.count]
    import soar_tf

    test = soar_tf.datasets.load("cifar10", data_dir=options.data_dir, splits=("test",))["test"]
    test = test.take(options.count)
    return test.float_images(), test.labels


def run_ours(network, x, y, name, norm, options):
    """Runs one of our components."""

    attack = our_attack(name, norm, radius(options, norm))
    found = []
    times = common.timed(lambda: found.append(attack(network, x, y, seed=options.seed).numpy()))
    check_threat_model(found[0] - x, found[0], norm, radius(options, norm))
    return record(correct_by(network, found[0], y), times)


def our_attack(name, norm, epsilon):
    """One component with the arguments that the reference gives it in this norm."""
    import soar_tf

    whole = soar_tf.attacks.get("autoattack", epsilon=epsilon, norm=norm)
    if name == "apgd-dlr":  # no stage of the standard version: the reference's own restarts
        restarts = 5 if norm == "l1" else 1
        return soar_tf.attacks.get(name, epsilon=epsilon, norm=norm, restarts=restarts)
    return dict([("autoattack", whole), *whole.stages()])[name]


def radius(options, norm):
    """The radius in this norm."""
    return EPSILON[norm] if options.epsilon is None else options.epsilon


def correct_by(network, images, y):
    """Whether each image is classified correctly."""
    return np.argmax(network.predict_on_batch(images), axis=1) == y


def check_threat_model(delta, found, norm, epsilon):
    """Refuses figures from points outside the ball or the box."""
    size = np.linalg.norm(delta.reshape(len(delta), -1), ORDERS[norm], axis=1)
    if size.max() > epsilon * (1 + 1e-5) + 1e-5 or found.min() < 0 or found.max() > 1:
        raise AssertionError("A point lies outside the threat model.")


def describe(network, folder):
    """Writes a chain of layers as a list of (kind, arguments) and their arrays."""
    layers, arrays = [], {}
    for layer in network.layers:
        kind, config = type(layer).__name__, layer.get_config()
        keys = ("scale", "offset", "padding", "strides", "pool_size", "activation")
        layers.append((kind, {key: config[key] for key in keys if key in config}))
        for k, array in enumerate(layer.get_weights()):
            arrays[f"{len(layers) - 1}_{k}"] = array
    np.savez(folder / "weights.npz", **arrays)
    (folder / "layers.json").write_text(json.dumps(layers))


def torch_network(folder):
    """Rebuilds the chain that `describe` wrote, on channels-first images."""
    import torch
    from torch.nn import functional

    layers = json.loads((folder / "layers.json").read_text())
    weights = {name: torch.tensor(w) for name, w in np.load(folder / "weights.npz").items()}

    def apply(x, k, kind, config):
        if kind == "Rescaling":
            return x * config["scale"] + config["offset"]
        if kind == "Conv2D":
            kernel = weights[f"{k}_0"].permute(3, 2, 0, 1)
            x = functional.conv2d(
                x, kernel, weights[f"{k}_1"], tuple(config["strides"]), config["padding"]
            )
        elif kind == "Dense":
            x = x @ weights[f"{k}_0"] + weights[f"{k}_1"]
        elif kind == "MaxPooling2D":
            return functional.max_pool2d(x, tuple(config["pool_size"]), tuple(config["strides"]))
        elif kind == "Flatten":
            return x.permute(0, 2, 3, 1).flatten(1)
        elif kind != "InputLayer":
            raise NotImplementedError(f"Layer {kind} is not known to this comparison.")
        return torch.relu(x) if config.get("activation") == "relu" else x

    class Chain(torch.nn.Module):
        def forward(self, x):
            for k, (kind, config) in enumerate(layers):
                x = apply(x, k, kind, config)
            return x

    return Chain().eval()


def run_reference(options):
    """The other side, in the other environment: the authors' code on the same network."""
    import torch
    from pyautoattack import AutoAttack

    torch.set_num_threads(options.threads)
    folder = pathlib.Path(options.run_reference)
    network, arrays = torch_network(folder), np.load(folder / "images.npz")
    x = torch.tensor(arrays["x"]).permute(0, 3, 1, 2).contiguous()
    y = torch.tensor(arrays["y"])
    (norm,), (name,) = options.norms, options.components
    adversary = AutoAttack(
        network,
        norm=norm.capitalize(),
        eps=radius(options, norm),
        seed=options.seed,
        version="standard",
    )
    if name != "autoattack":
        adversary.attacks_to_run = [name]
    found = []
    times = common.timed(
        lambda: found.append(adversary.run_standard_evaluation(x, y, batch_size=len(x))[0])
    )
    with torch.no_grad():
        correct = (network(found[0]).argmax(1) == y).numpy()
    (folder / "reference.json").write_text(json.dumps(record(correct, times)))


def call_reference(options, folder, name, norm):
    """Runs this file in the reference's environment and reads its figures."""
    command = [
        options.torch_python,
        "-m",
        "benchmarks.autoattack_reference",
        "--run-reference",
        str(folder),
        "--network",
        "-",
        "--torch-python",
        "-",
        "--norms",
        norm,
        "--components",
        name,
        "--seed",
        str(options.seed),
        "--threads",
        str(options.threads),
        "--epsilon",
        str(radius(options, norm)),
    ]
    subprocess.run(command, check=True, cwd=common.ROOT, stdout=sys.stderr)
    return json.loads((folder / "reference.json").read_text())


def compare(entry, x, y, figures, options):
    """Runs what is missing of one network's comparison."""
    import keras

    label, _, path = entry.partition("=")
    network = keras.models.load_model(path, compile=False)
    results = figures["networks"].setdefault(label, {})
    results["clean"] = 100 * float(np.mean(correct_by(network, x, y)))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        describe(network, folder)
        np.savez(folder / "images.npz", x=x, y=y)
        for norm in options.norms:
            done = results.setdefault(norm, {})
            for component in options.components:
                if component not in done:
                    done[component] = {
                        "soar_tf": run_ours(network, x, y, component, norm, options),
                        "reference": call_reference(options, folder, component, norm),
                    }
                    common.write(options.json, figures)
            print(table(f"{label}, {norm}", results["clean"], done), flush=True)


def table(title, clean, components):
    """The comparison as Markdown."""
    lines = [
        f"### {title} (clean {clean:.1f} %)",
        "",
        "| attack | soar_tf % | reference % | difference | images that differ | wall s | CPU s "
        "| wall ratio | CPU ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, sides in components.items():
        a, b = sides["soar_tf"], sides["reference"]
        differ = int(np.sum(np.array(a["correct"]) != np.array(b["correct"])))
        times = [f"{a[unit]:.0f} / {b[unit]:.0f}" for unit in ("wall", "cpu")]
        ratios = [f"{a[unit] / b[unit]:.2f}" for unit in ("wall", "cpu")]
        accuracies = [f"{side['accuracy']:.1f}" for side in (a, b)]
        difference = f"{a['accuracy'] - b['accuracy']:+.1f}"
        cells = [name, *accuracies, difference, str(differ), *times, *ratios]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments=None):
    """Runs both sides on every network, prints the tables, writes the figures."""
    options = parse(arguments)
    if options.run_reference:
        run_reference(options)
        return
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    settings = {key: getattr(options, key) for key in ("count", "seed", "threads")}
    if options.epsilon is not None:
        settings["epsilon"] = options.epsilon
    figures = {"machine": common.machine(), "settings": settings, "networks": {}}
    path = pathlib.Path(options.json)
    if path.is_file():
        stored = json.loads(path.read_text())
        if stored.get("settings") != settings:
            sys.exit(
                f"{path} holds other settings: {stored.get('settings')}; delete it or use --json."
            )
        figures["networks"] = stored["networks"]
    x, y = load_images(options)
    for entry in options.network:
        compare(entry, x, y, figures, options)


if __name__ == "__main__":
    main()
