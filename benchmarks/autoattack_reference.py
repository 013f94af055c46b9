"""Compares AutoAttack with its authors' code, component by component, on one network.

The two implementations run in two Python environments (the authors' code needs PyTorch), on the
same weights and images, with the same settings, each with all images in one batch:

    python -m venv reference && reference/bin/pip install torch pyautoattack
    python benchmarks/autoattack_reference.py --network cnn4.keras --images images.npz \\
        --reference-python reference/bin/python --count 128 --json autoattack.json

`--network` is a Keras file of rescaling, convolution, max-pooling, flatten, dense, ReLU layers in
a chain; `--images` holds `x` (float32 in [0, 1], `[N, H, W, C]`) and `y`. Robust accuracies are in
per cent of all images; each component attacks the correctly classified images by itself. Times
include tracing. On a machine with other jobs compare the processor times, with one thread: waiting
threads of PyTorch spin, and wall time is the scheduler's.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import numpy as np

COMPONENTS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "autoattack")


def parse(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", required=True, help="Keras file of the network")
    parser.add_argument("--images", required=True, help="NPZ file with x and y")
    parser.add_argument("--reference-python", required=True, help="Python with pyautoattack")
    parser.add_argument("--count", type=int, default=128, help="number of images")
    parser.add_argument("--epsilon", type=float, default=8 / 255)
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--components", nargs="+", choices=COMPONENTS, default=COMPONENTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads of either side")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--run-reference", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def timed(function, *arguments, **keywords):
    """Calls `function`; returns its result, wall seconds and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments, **keywords)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def record(correct, wall, cpu):
    """One component's figures."""
    return {
        "correct": [bool(value) for value in correct],
        "accuracy": 100 * float(np.mean(correct)),
        "wall": wall,
        "cpu": cpu,
    }


def run_ours(options, folder):
    """Runs soar_tf; writes the weights and images for the other side."""
    import keras
    import tensorflow as tf

    import soar_tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)

    network = keras.models.load_model(options.network, compile=False)
    arrays = np.load(options.images)
    x, y = arrays["x"][: options.count], arrays["y"][: options.count]
    describe(network, folder)
    np.savez(folder / "images.npz", x=x, y=y)

    def correct(images):
        return np.argmax(network.predict_on_batch(images), axis=1) == y

    figures = {"clean": {"accuracy": 100 * float(np.mean(correct(x)))}}
    for name in options.components:
        attack = soar_tf.attacks.get(name, epsilon=options.epsilon, norm=options.norm)
        found, wall, cpu = timed(attack, network, x, y, seed=options.seed)
        found = found.numpy()
        check_threat_model(found - x, found, options)
        figures[name] = record(correct(found), wall, cpu)
        print(f"soar_tf {name}: {figures[name]['accuracy']:.1f} %, {cpu:.1f} cpu s", flush=True)
    return figures


def check_threat_model(delta, found, options):
    """Refuses figures from points outside the ball or the box."""
    flat = np.abs(delta).reshape(len(delta), -1)
    size = flat.max(1) if options.norm == "linf" else np.linalg.norm(flat, axis=1)
    if size.max() > options.epsilon + 1e-5 or found.min() < 0 or found.max() > 1:
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
    norm = {"linf": "Linf", "l2": "L2"}[options.norm]

    def correct(images):
        with torch.no_grad():
            return (network(images).argmax(1) == y).numpy()

    figures = {"clean": {"accuracy": 100 * float(np.mean(correct(x)))}}
    for name in options.components:
        adversary = AutoAttack(
            network, norm=norm, eps=options.epsilon, seed=options.seed, version="standard"
        )
        if name != "autoattack":
            adversary.attacks_to_run = [name]
        (found, _), wall, cpu = timed(adversary.run_standard_evaluation, x, y, batch_size=len(x))
        figures[name] = record(correct(found), wall, cpu)
        print(f"reference {name}: {figures[name]['accuracy']:.1f} %, {cpu:.1f} cpu s", flush=True)
    (folder / "reference.json").write_text(json.dumps(figures))


def call_reference(options, folder):
    """Runs this file in the reference's environment and reads its figures."""
    command = [
        options.reference_python, __file__, "--run-reference", str(folder),
        "--network", options.network, "--images", options.images,
        "--reference-python", options.reference_python, "--epsilon", str(options.epsilon),
        "--norm", options.norm, "--seed", str(options.seed), "--threads", str(options.threads),
        "--components", *options.components,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return json.loads((folder / "reference.json").read_text())


def table(ours, reference, components):
    """The comparison as Markdown."""
    lines = [
        f"clean accuracy: {ours['clean']['accuracy']:.1f} / {reference['clean']['accuracy']:.1f} %",
        "",
        "| attack | soar_tf % | reference % | images that differ | wall s | cpu s | cpu ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in components:
        a, b = ours[name], reference[name]
        differ = int(np.sum(np.array(a["correct"]) != np.array(b["correct"])))
        lines.append(
            f"| {name} | {a['accuracy']:.1f} | {b['accuracy']:.1f} | {differ} "
            f"| {a['wall']:.0f} / {b['wall']:.0f} | {a['cpu']:.0f} / {b['cpu']:.0f} "
            f"| {a['cpu'] / b['cpu']:.2f} |"
        )
    return "\n".join(lines)


def main():
    """Runs both sides, prints the table, writes the figures."""
    options = parse()
    if options.run_reference:
        run_reference(options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ours = run_ours(options, folder)
        reference = call_reference(options, folder)
    print(table(ours, reference, options.components))
    if options.json:
        keys = ("count", "epsilon", "norm", "seed", "threads")
        settings = {key: getattr(options, key) for key in keys}
        figures = {"settings": settings, "soar_tf": ours, "reference": reference}
        pathlib.Path(options.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
