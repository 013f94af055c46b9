"""The cost of a train step: every method, relative to Standard and PGD-7, beside peers.

    python -m benchmarks.step --torch-python reference/bin/python

Peers run in their own Python (benchmarks/requirements-torch.txt), in turn with ours. Without
`--torch-python` they are left out.
"""

from benchmarks import common

NETWORKS = ("cnn4", "resnet18-narrow")


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "step")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS,
                        default=list(NETWORKS))  # fmt: skip
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--torch-python", help="Python with PyTorch (and ART)")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Times the steps, prints the tables, writes the figures."""
    options = parse(arguments)
    figures = {"machine": common.machine(), "batch_size": options.batch_size, "networks": {}}
    for name in options.networks:
        figures["networks"][name] = measure(name, options, figures)
        print(table(name, figures["networks"][name]), flush=True)
    common.write(options.json, figures)


def measure(name, options, figures):
    """One network's figures."""
    from benchmarks import flops, workload

    batch = workload.images(options.batch_size)
    net = workload.network(name)
    chosen = workload.methods()
    if options.methods:
        chosen = {key: chosen[key] for key in options.methods}
    steps = {key: workload.Step(method, net, batch) for key, method in chosen.items()}
    functions = {"matrix product": flops.matrix_product(), **steps}
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
    times["matrix product"]["gflop"] = flops.PRODUCT / 1e9
    rate = flops.PRODUCT / times["matrix product"]["wall"]
    for key, step in steps.items():
        operations = step.flops()
        times[key] |= {"gflop": operations / 1e9, "share": operations / rate / times[key]["wall"]}
    return times


def table(name, times):
    """The figures of a network as Markdown; pairs are wall / CPU time."""
    product = times["matrix product"]["gflop"] / times["matrix product"]["wall"]
    lines = [
        f"### {name} (matrix products: {product:.0f} GFLOP/s)",
        "",
        "| step | ms | of Standard | of PGD-7 | F | share of matrix-product rate |",
        "|---|---|---|---|---|---|",
    ]
    forward = times["standard"]["gflop"] / 3 if "standard" in times else None
    for key, run in sorted(times.items(), key=lambda item: item[1]["wall"]):
        if key == "matrix product":
            continue
        passes = share = ""
        if "gflop" in run:
            share = f"{100 * run['share']:.0f} %"
            passes = f"{run['gflop'] / forward:.1f}" if forward else ""
        milliseconds = " / ".join(common.milliseconds(run[unit]) for unit in ("wall", "cpu"))
        ratios = [_ratios(run, times.get(base)) for base in ("standard", "adversarial")]
        lines.append("| " + " | ".join([key, milliseconds, *ratios, passes, share]) + " |")
    return "\n".join(lines)


def _ratios(run, base):
    return "" if base is None else " / ".join(f"{run[u] / base[u]:.2f}" for u in ("wall", "cpu"))


if __name__ == "__main__":
    main()
