"""`fit` against the bare step: what the input pipeline, callbacks and metrics add.

    python -m benchmarks.epoch --data-dir DIR

An epoch of `--steps` batches through the package's pipeline (decoded once, shuffled, cropped,
flipped), with validation left out, a CSV log and the accuracy metric; beside as many bare steps on
a batch that is in memory. In turn. `plain Keras` is the `fit` of the same network without the
package's model, on the same pipeline, beside the bare step of `standard`.
"""

import statistics
import tempfile

from benchmarks import common

PLAIN = "plain Keras"


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "epoch")
    parser.add_argument("--data-dir", help="prepared tensorflow-datasets with cifar10")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100, help="steps of an epoch")
    default = ["standard", PLAIN, "soar", "adversarial"]
    parser.add_argument("--methods", nargs="+", default=default)
    return parser.parse_args(arguments)


def main(arguments=None):
    """Times both, prints the table, writes the figures."""
    import soar_tf

    options = parse(arguments)
    figures = {"machine": common.machine(), "batch_size": options.batch_size}
    figures |= {"steps": options.steps, "methods": {}}
    splits = soar_tf.datasets.load("cifar10", data_dir=options.data_dir, splits=("train",))
    train = splits["train"].take(options.batch_size * options.steps)
    for name in options.methods:
        figures["methods"][name] = measure(name, train, options)
    print(table(figures))
    common.write(options.json, figures)


def measure(name, train, options):
    """One method's figures; the overhead is the median of each round's."""
    import keras

    import soar_tf
    from benchmarks import workload

    method = workload.methods()["standard" if name == PLAIN else name]
    batch = workload.images(options.batch_size)
    bare = workload.Step(method, workload.network("cnn4"), batch)
    model = workload.network("cnn4")
    if name != PLAIN:
        model = soar_tf.RobustModel(model, method)
    model.compile(
        keras.optimizers.SGD(1e-6, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    epochs = options.repeats + 1
    pipeline, steps = soar_tf.datasets.training_pipeline(
        train, options.batch_size, seed=0, epochs=epochs, augment=True
    )
    rounds, watches = [], []

    def end(epoch, logs):
        fit = watches.pop().read()
        rounds.append((fit, common.timed(lambda: [bare() for _ in range(steps)])))

    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: watches.append(common.Stopwatch()), on_epoch_end=end
    )
    with tempfile.NamedTemporaryFile(suffix=".csv") as log:
        callbacks = [keras.callbacks.CSVLogger(log.name), clock]
        model.fit(pipeline, epochs=epochs, steps_per_epoch=steps, callbacks=callbacks, verbose=0)
    rounds = rounds[1:]  # the first one compiles
    return {
        unit: {
            "fit": statistics.median(fit[unit] for fit, _ in rounds) / steps,
            "bare": statistics.median(bare[unit] for _, bare in rounds) / steps,
            "overhead": statistics.median(fit[unit] / bare[unit] - 1 for fit, bare in rounds),
        }
        for unit in ("wall", "cpu")
    }


def table(figures):
    """The figures as Markdown."""
    lines = [
        "| method | fit, ms a step | bare step, ms | overhead, wall | overhead, CPU |",
        "|---|---|---|---|---|",
    ]
    for name, run in figures["methods"].items():
        cells = [common.milliseconds(run["wall"][key]) for key in ("fit", "bare")]
        cells += [f"{100 * run[unit]['overhead']:.1f} %" for unit in ("wall", "cpu")]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
