"""Scale: batch size, image size and width; a SOAR step's cost must grow as its arithmetic does.

python -m benchmarks.scale
"""

from benchmarks import common

CASES = {
    "batch": [{"batch": size} for size in (32, 128, 512, 1024)],
    "image": [{"batch": 32, "size": side} for side in (32, 64, 128, 224)],
    "width": [{"batch": 32, "width": factor} for factor in (0.5, 1.0, 2.0, 4.0)],
}


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "scale")
    parser.set_defaults(repeats=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--methods", nargs="+", default=["standard", "soar"])
    return parser.parse_args(arguments)


def main(arguments=None):
    """Times the steps, prints the tables, writes the figures."""
    options = parse(arguments)
    figures = {"machine": common.machine(), "cases": {}}
    for kind in options.cases:
        figures["cases"][kind] = [measure(case, options) for case in CASES[kind]]
        print(table(kind, figures["cases"][kind]), flush=True)
    common.write(options.json, figures)


def measure(case, options):
    """One size's figures."""
    from benchmarks import workload

    size = case.get("size", 32)
    net = workload.network("cnn4", size, width=case.get("width", 1.0))
    batch = workload.images(case["batch"], size)
    steps = {name: workload.Step(workload.methods()[name], net, batch) for name in options.methods}
    times = common.interleaved(steps, options.repeats)
    for name, step in steps.items():
        times[name]["gflop"] = step.flops() / 1e9
    return {**case, "times": times}


def table(kind, cases):
    """The figures as Markdown; the rate stays level where cost grows as the arithmetic."""
    names = list(cases[0]["times"])
    header = [kind, *(f"{name}, {what}" for name in names for what in ("ms", "GFLOP/s"))]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for case in cases:
        value = case.get({"batch": "batch", "image": "size", "width": "width"}[kind])
        cells = [str(value)]
        for name in names:
            run = case["times"][name]
            cells += [common.milliseconds(run["wall"]), f"{run['gflop'] / run['wall']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
