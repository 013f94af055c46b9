"""A train step in half precision beside the same step in float32.

    python -m benchmarks.precision

On a processor with instructions for bfloat16 (AMX) or a GPU with tensor cores, what may run in half
precision gains much. Curvature may not: a finite difference of rounded gradients is noise.
"""

from benchmarks import common

METHODS = ("standard", "fast", "adversarial", "trades", "soar")


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "precision")
    parser.add_argument(
        "--precision", default="mixed_bfloat16", choices=("mixed_bfloat16", "mixed_float16")
    )
    parser.add_argument("--batch-size", type=int, default=128)
    return parser.parse_args(arguments)


def main(arguments=None):
    """Times the steps, prints the table, writes the figures."""
    options = parse(arguments)
    from benchmarks import workload
    from soar_tf.models.precision import set_precision

    batch, methods = workload.images(options.batch_size), workload.methods()
    functions = {}
    for precision in ("float32", options.precision):
        for name in METHODS:
            network = workload.network("cnn4")
            set_precision(network, precision)
            functions[f"{name} {precision}"] = workload.Step(methods[name], network, batch)
    figures = {
        "machine": common.machine(),
        "precision": options.precision,
        "batch_size": options.batch_size,
        "times": common.interleaved(functions, options.repeats),
    }
    print(table(figures))
    common.write(options.json, figures)


def table(figures):
    """The figures as Markdown."""
    half, times = figures["precision"], figures["times"]
    lines = [
        f"cnn4, batches of {figures['batch_size']}; PGD-7 is `adversarial`.",
        "",
        f"| step | float32, ms | {half}, ms | ratio | of PGD-7, float32 | of PGD-7, {half} |",
        "|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        wall = {p: times[f"{name} {p}"]["wall"] for p in ("float32", half)}
        shares = [wall[p] / times[f"adversarial {p}"]["wall"] for p in wall]
        lines.append(
            f"| {name} | {common.milliseconds(wall['float32'])} "
            f"| {common.milliseconds(wall[half])} | {wall[half] / wall['float32']:.2f} "
            f"| {shares[0]:.2f} | {shares[1]:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
