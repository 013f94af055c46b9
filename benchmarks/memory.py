"""Peak memory of a train step: every method and batch size, each in a process of its own.

    python -m benchmarks.memory
    python -m benchmarks.memory --network NAME=FILE ... --data-dir DIR --json FILE

The second form is for trained networks on CIFAR-10's images: SOAR's memory depends on their share
of clipped examples, which are skipped here, as in training.

What two steps add to the process's largest resident set before the first one: activations,
gradients and the libraries' buffers.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks import common

METHODS = (
    "standard",
    "soar",
    "soar-unclipped",
    "adversarial",
    "trades",
    "cure",
    "jacobian",
    "sum",
)


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "memory")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--micro-batch", type=int, default=32, help="for one more row a method")
    parser.add_argument("--network", nargs="+", default=[""], metavar="NAME=FILE")
    parser.add_argument("--data-dir", help="prepared tensorflow-datasets with cifar10")
    parser.add_argument("--batch", help="internal: a file of images and labels")
    parser.add_argument("--child", nargs=3, help="internal: method, batch size, micro batch")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measures, prints the table, writes the figures."""
    options = parse(arguments)
    if options.child:
        child(*options.child, options.network[0], options.batch)
        return
    figures = {"machine": common.machine(), "micro_batch": options.micro_batch, "rows": []}
    for network in options.network:
        for name in options.methods:
            for size in options.batch_sizes:
                for micro in (0, options.micro_batch):
                    if micro < size:
                        figures["rows"].append(measure(name, size, micro, network, options))
    print(table(figures))
    common.write(options.json, figures)


def measure(name, size, micro, network, options):
    """A row of the table: mebibytes that the steps added, in a fresh process."""
    from benchmarks import workload

    command = [sys.executable, "-m", "benchmarks.memory", "--child", name, str(size), str(micro)]
    with tempfile.TemporaryDirectory() as folder:
        if network:
            # Reading the set takes more memory than a step, so it is not done in that process.
            batch = pathlib.Path(folder, "batch.npz")
            np.savez(batch, *workload.cifar10(options.data_dir, size))
            command += ["--network", network, "--batch", str(batch)]
        done = subprocess.run(
            command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
    row = {"method": name, "batch_size": size, "micro_batch": micro or None}
    if network:
        row["network"] = network.partition("=")[0]
    return {**row, **json.loads(done.stdout.splitlines()[-1])}


def child(name, size, micro, network, batch_file):
    """The fresh process: prints what the steps added, and the share of unclipped examples."""
    import keras

    from benchmarks import workload

    method, parts, skips = workload.methods()[name], int(micro) or None, False
    if network:
        net = keras.models.load_model(network.partition("=")[2], compile=False)
        skips = method.clips_examples
        with np.load(batch_file) as arrays:
            batch = arrays["arr_0"], arrays["arr_1"]
    else:
        net, batch = workload.network("cnn4"), workload.images(int(size))
    step = workload.Step(method, net, batch, parts, skip_clipped=skips)
    before = peak()
    logs = [step.function(*step.batch) for _ in range(2)][-1]
    found = {"mebibytes": peak() - before}
    if "unclipped" in logs:
        found["unclipped"] = float(logs["unclipped"])
    print(json.dumps(found))


def peak():
    """The process's largest resident set so far, mebibytes."""
    # `ru_maxrss` begins with the parent's at the fork, which may be larger than all that follows.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def table(figures):
    """The figures as Markdown."""
    lines = [
        "| network | method | unclipped | batch | micro batch | MiB | of Standard |",
        "|---|---|---|---|---|---|---|",
    ]
    bases = whole_standard(figures["rows"])
    for row in figures["rows"]:
        base = bases.get(place(row))
        cells = [row.get("network", "new"), row["method"]]
        cells.append(f"{row['unclipped']:.2f}" if "unclipped" in row else "")
        cells += [row["batch_size"], row["micro_batch"] or "", f"{row['mebibytes']:.0f}"]
        cells.append(f"{row['mebibytes'] / base:.2f}" if base else "")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def place(row):
    """What a row's figure is compared within: network and batch size."""
    return row.get("network", "new"), row["batch_size"]


def whole_standard(rows):
    """Standard's mebibytes without parts, by `place`."""
    return {
        place(row): row["mebibytes"]
        for row in rows
        if row["method"] == "standard" and row["micro_batch"] is None
    }


if __name__ == "__main__":
    main()
