"""The cost of SOAR's step on trained networks, where it depends on the share of unclipped examples.

    python -m benchmarks.trained --network NAME=FILE ... --data-dir DIR --torch-python P

The weights stay as they are (a learning rate of 1e-6), on a batch of CIFAR-10 training images.
Steps take turns. PyTorch's SOAR, on a network of the same form, is left out without
`--torch-python`.
"""

import contextlib

from benchmarks import common

# What `skip_clipped="auto"` takes, by the share.
SKIPPED, WHOLE = "soar, skipping", "soar, whole"


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "trained")
    parser.add_argument("--network", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--data-dir", required=True, help="prepared tensorflow-datasets")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--torch-python", help="Python with PyTorch")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Times the steps, prints the tables, writes the figures."""
    options = parse(arguments)
    figures = {"machine": common.machine(), "batch_size": options.batch_size, "networks": {}}
    for entry in options.network:
        label, _, path = entry.partition("=")
        figures["networks"][label] = measure(path, options, figures)
        print(table(label, figures["networks"][label]), flush=True)
    common.write(options.json, figures)


def methods():
    """`{name: (method, skip_clipped)}`."""
    import soar_tf

    soar = soar_tf.methods.SOAR
    return {
        "standard": (soar_tf.methods.get("standard"), False),
        SKIPPED: (soar(), True),
        WHOLE: (soar(), False),
        "batch_mean, skipping": (soar(preset="batch_mean"), True),
        "batch_mean, whole": (soar(preset="batch_mean"), False),
        "soar-quarter": (soar(penalty_fraction=0.25), True),
        "adversarial": (soar_tf.methods.get("adversarial", steps=7), False),
    }


def measure(path, options, figures):
    """One network's figures."""
    import keras

    from benchmarks import workload

    network = keras.models.load_model(path, compile=False)
    batch = workload.cifar10(options.data_dir, options.batch_size)
    steps = {
        name: workload.Step(method, network, batch, skip_clipped=skip)
        for name, (method, skip) in methods().items()
    }
    functions = dict(steps)
    with contextlib.ExitStack() as stack:
        if options.torch_python:
            peer = common.Peer(options.torch_python, "torch_peer", options.batch_size)
            stack.callback(peer.close)
            figures.setdefault("peer_versions", {}).update(peer.hello["versions"])
            functions["torch eager soar"] = lambda: peer("torch eager soar")
        times = common.interleaved(functions, options.repeats)
    for name, step in steps.items():
        logs = step.function(*step.batch)
        if "unclipped" in logs:
            times[name]["unclipped"] = float(logs["unclipped"])
    return times


def share(times):
    """The share of unclipped examples."""
    return times[SKIPPED]["unclipped"]


def limit(times):
    """How many standard steps SOAR's may cost."""
    return (8.5 + 12 * share(times)) / 3


def table(label, times):
    """The figures of a network as Markdown; pairs are wall / CPU time."""
    lines = [
        f"### {label} (share of unclipped examples {share(times):.2f})",
        "",
        "| step | ms | of Standard | of PGD-7 |",
        "|---|---|---|---|",
    ]
    for name, run in sorted(times.items(), key=lambda item: item[1]["cpu"]):
        cells = [" / ".join(common.milliseconds(run[unit]) for unit in ("wall", "cpu"))]
        for base in ("standard", "adversarial"):
            cells.append(" / ".join(f"{run[u] / times[base][u]:.2f}" for u in ("wall", "cpu")))
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
