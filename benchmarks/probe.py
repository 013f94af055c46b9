"""What the probe takes before an evaluation, beside the first compiled pass that follows it.

    python -m benchmarks.probe

Both are called on new networks each time, so that the pass is traced and the probe finds nothing
compiled.
"""

import tensorflow as tf

from benchmarks import common

LIMIT = 0.3
"""Seconds that the probe may take on cnn4."""


def parse(arguments=None):
    """Reads the command line."""
    return common.parser(__doc__.splitlines()[0], "probe").parse_args(arguments)


def main(arguments=None):
    """Times both, prints the table, writes the figures."""
    options = parse(arguments)
    import soar_tf
    from benchmarks import workload

    x, y = workload.images(256)

    def timed(function):
        def run():
            network = workload.network("cnn4")
            return common.timed(lambda: function(network))

        return run

    def first_pass(network):
        graph = tf.function(lambda x: network(x, training=False), autograph=False)
        graph(tf.constant(x)).numpy()

    functions = {
        "probe": timed(lambda network: soar_tf.probe(network, x, y)),
        "first compiled pass": timed(first_pass),
    }
    figures = {
        "machine": common.machine(),
        "times": common.interleaved(functions, options.repeats),
    }
    print(table(figures))
    common.write(options.json, figures)


def table(figures):
    """The figures as Markdown."""
    lines = [
        "cnn4; the pass classifies 256 images, the probe looks at 16 of them.",
        "",
        "| | wall, ms | processor, ms |",
        "|---|---|---|",
    ]
    for name, times in figures["times"].items():
        wall, cpu = (common.milliseconds(times[clock]) for clock in ("wall", "cpu"))
        lines.append(f"| {name} | {wall} | {cpu} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
