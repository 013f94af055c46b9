"""Where a train step's time goes: seconds by kind of operation, from TensorFlow's profiler.

    python -m benchmarks.operations

Operations run side by side, so the times of a step's operations add up to more than the step.
"""

import collections
import pathlib
import tempfile

from benchmarks import common

METHODS = ("standard", "soar", "adversarial")
# The kernels behind each row; oneDNN's carry a prefix.
KINDS = {
    "convolution, forward": ("Conv2D", "FusedConv2D"),
    "convolution, gradient by the input": ("Conv2DBackpropInput",),
    "convolution, gradient by the kernel": (
        "Conv2DBackpropFilter",
        "Conv2DBackpropFilterWithBias",
    ),
    "dense layers": ("MatMul", "FusedMatMul"),
    "ReLU's gradient": ("ReluGrad",),
    "pooling": ("MaxPool", "MaxPoolGrad", "AvgPool"),
    "sums of gradients": ("AddN",),
    "products, sums, noise and the rest": (),
}


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "operations")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    return parser.parse_args(arguments)


def main(arguments=None):
    """Profiles, prints the table, writes the figures."""
    from benchmarks import workload

    options = parse(arguments)
    figures = {"machine": common.machine(), "methods": {}}
    batch = workload.images(128)
    for name in options.methods:
        step = workload.Step(workload.methods()[name], workload.network("cnn4"), batch)
        figures["methods"][name] = measure(step, options.repeats)
    print(table(figures))
    common.write(options.json, figures)


def measure(step, repeats):
    """Seconds a step, by kind of operation."""
    import tensorflow as tf

    step()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(repeats):
            step()
        tf.profiler.experimental.stop()
        seconds = _by_operation(pathlib.Path(folder))
    grouped = dict.fromkeys(KINDS, 0.0)
    rest = list(KINDS)[-1]
    for operation, total in seconds.items():
        kind = next((k for k, operations in KINDS.items() if operation in operations), rest)
        grouped[kind] += total / repeats
    return grouped


def _by_operation(folder):
    """Seconds of every kernel in a profile."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    seconds = collections.Counter()
    for path in folder.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in (plane for plane in space.planes if "CPU" in plane.name):
            names = {key: value.name for key, value in plane.event_metadata.items()}
            for event in (event for line in plane.lines for event in line.events):
                node, _, kernel = names[event.metadata_id].rpartition(":")
                # Kernels are `node:Kind`; the runtime names its own regions in other ways.
                if node and not node.endswith(":") and not kernel.startswith(" "):
                    kernel = kernel.removeprefix("_MklNative").removeprefix("_Mkl")
                    seconds[kernel] += event.duration_ps * 1e-12
    return seconds


def table(figures):
    """The figures as Markdown: milliseconds, and shares of all operations."""
    methods = figures["methods"]
    lines = [
        "| operations | " + " | ".join(f"{name}, ms" for name in methods) + " |",
        "|---|" + "---|" * len(methods),
    ]
    for kind in KINDS:
        cells = []
        for seconds in methods.values():
            share = seconds[kind] / sum(seconds.values())
            cells.append(f"{common.milliseconds(seconds[kind])} ({100 * share:.0f} %)")
        lines.append("| " + " | ".join([kind, *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
