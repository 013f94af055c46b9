"""Peak memory of a train step: every method and batch size, each in a process of its own.

    python -m benchmarks.memory

What two steps add to the process's largest resident set before the first one: activations,
gradients and the libraries' buffers.
"""

import json
import resource
import subprocess
import sys

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
    parser.add_argument("--child", nargs=3, help="internal: method, batch size, micro batch")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measures, prints the table, writes the figures."""
    options = parse(arguments)
    if options.child:
        child(*options.child)
        return
    figures = {"machine": common.machine(), "micro_batch": options.micro_batch, "rows": []}
    for name in options.methods:
        for size in options.batch_sizes:
            for micro in (0, options.micro_batch):
                if micro < size:
                    peak = measure(name, size, micro)
                    row = {"method": name, "batch_size": size, "micro_batch": micro or None}
                    figures["rows"].append({**row, "mebibytes": peak})
    print(table(figures))
    common.write(options.json, figures)


def measure(name, size, micro):
    """Mebibytes that the steps added, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name, str(size), str(micro)]
    done = subprocess.run(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(name, size, micro):
    """The fresh process: prints what the steps added."""
    from benchmarks import workload

    batch, parts = workload.images(int(size)), int(micro) or None
    step = workload.Step(workload.methods()[name], workload.network("cnn4"), batch, parts)
    before = peak()
    for _ in range(2):
        step()
    print(json.dumps(peak() - before))


def peak():
    """The process's largest resident set so far, mebibytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(figures):
    """The figures as Markdown."""
    lines = ["| method | batch | micro batch | MiB | of Standard |", "|---|---|---|---|---|"]
    rows = figures["rows"]
    standard = {
        row["batch_size"]: row["mebibytes"]
        for row in rows
        if row["method"] == "standard" and row["micro_batch"] is None
    }
    for row in rows:
        base = standard.get(row["batch_size"])
        ratio = f"{row['mebibytes'] / base:.2f}" if base else ""
        micro = row["micro_batch"] or ""
        cells = [row["method"], row["batch_size"], micro, f"{row['mebibytes']:.0f}", ratio]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
