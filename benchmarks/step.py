"""The cost of a train step: every method, relative to Standard and PGD-7, beside peers.

    python -m benchmarks.step --torch-python reference/bin/python --nsl-python nsl/bin/python

Peers run in Pythons of their own (benchmarks/requirements-torch.txt and requirements-nsl.txt), in
turn with ours. Without these options they are left out.
"""

import contextlib

from benchmarks import common

NETWORKS = ("cnn4", "resnet18-narrow")


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "step")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--torch-python", help="Python with PyTorch (and ART)")
    parser.add_argument("--nsl-python", help="Python with Neural Structured Learning")
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
    pythons = {"torch_peer": options.torch_python, "nsl_peer": options.nsl_python}
    with contextlib.ExitStack() as stack:
        for module, python in pythons.items():
            if python is None or name != "cnn4":
                continue
            peer = common.Peer(python, module, options.batch_size)
            stack.callback(peer.close)
            figures.setdefault("peer_versions", {}).update(peer.hello["versions"])
            for key in peer.hello["functions"]:
                functions[key] = lambda peer=peer, key=key: peer(key)
        times = common.interleaved(functions, options.repeats)
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
