"""The cost of a train step: every method, relative to Standard and PGD-7, beside peers.

    python -m benchmarks.step --torch-python reference/bin/python

Peers run in their own Python (benchmarks/requirements-torch.txt), in turn with ours. Without
`--torch-python` they are left out.
"""

import sys

from benchmarks import common, flops, workload


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "step")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--networks", nargs="+", choices=workload.NETWORKS,
                        default=list(workload.NETWORKS))  # fmt: skip
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--torch-python", help="Python with PyTorch (and ART)")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Times the steps, prints the tables, writes the figures."""
    options = parse(arguments)
    figures = {"machine": common.machine(), "batch_size": options.batch_size, "networks": {}}
    figures["matmul_gflops"] = flops.matmul_rate() / 1e9
    for name in options.networks:
        figures["networks"][name] = measure(name, options, figures)
        print(table(name, figures["networks"][name]), flush=True)
    common.write(options.json, figures)


def measure(name, options, figures):
    """One network's figures."""
    batch = workload.images(options.batch_size)
    net = workload.network(name)
    chosen = workload.methods()
    if options.methods:
        chosen = {key: chosen[key] for key in options.methods}
    steps = {key: workload.Step(method, net, batch) for key, method in chosen.items()}
    functions = dict(steps)
    peer = None
    if options.torch_python and name == "cnn4":
        peer = common.Peer(options.torch_python, "torch_peer", options.batch_size)
        figures["peer_versions"] = peer.hello["versions"]
        for key in peer.hello["functions"]:
            functions[key] = lambda key=key: peer(key)
    try:
        times = common.interleaved(functions, options.repeats)
    finally:
        if peer is not None:
            peer.close()
    rate = figures["matmul_gflops"] * 1e9
    for key, step in steps.items():
        operations = step.flops()
        times[key] |= {"gflop": operations / 1e9, "share": operations / rate / times[key]["wall"]}
    return times


def table(name, times):
    """The figures of a network as Markdown."""
    kind = "wall" if "--cpu" not in sys.argv else "cpu"
    base = {key: times.get(key, {}).get(kind) for key in ("standard", "adversarial")}
    lines = [
        f"### {name}",
        "",
        "| step | ms | CPU ms | of Standard | of PGD-7 | F | share of matmul rate |",
        "|---|---|---|---|---|---|---|",
    ]
    forward = times["standard"]["gflop"] / 3 if "standard" in times else None
    for key, run in sorted(times.items(), key=lambda item: item[1][kind]):
        ratios = [f"{run[kind] / base[k]:.2f}" if base[k] else "" for k in base]
        passes = share = ""
        if "gflop" in run:
            share = f"{100 * run['share']:.0f} %"
            passes = f"{run['gflop'] / forward:.1f}" if forward else ""
        cells = [key, common.milliseconds(run["wall"]), common.milliseconds(run["cpu"])]
        lines.append("| " + " | ".join([*cells, *ratios, passes, share]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
