"""How often PGD and APGD repeat a state exactly: what stopping such searches could save.

    python -m benchmarks.cycles --network NAME=FILE ... --data-dir DIR

The next iterate of PGD depends on the current one alone, that of APGD also on the one before and
the step size. Where a state comes again, the rest of the search is known. The figure is the share
of all steps of unbroken images that would not have to be taken. Nothing is timed.
"""

import numpy as np

from benchmarks import common

ATTACKS = {
    "pgd20": ("pgd", {"steps": 20}),
    "pgd100": ("pgd", {"steps": 100}),
    "apgd-ce": ("apgd-ce", {}),
    "apgd-t": ("apgd-t", {}),
}


def main(arguments=None):
    """Counts, prints the table, writes the figures."""
    import keras

    import soar_tf

    parser = common.parser(__doc__.splitlines()[0], "cycles")
    parser.add_argument("--network", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--data-dir", required=True, help="prepared tensorflow-datasets")
    parser.add_argument("--count", type=int, default=100, help="correctly classified images")
    options = parser.parse_args(arguments)
    splits = soar_tf.datasets.load("cifar10", data_dir=options.data_dir, splits=("test",))
    test = splits["test"].take(3 * options.count)
    images, labels = test.float_images(), test.labels
    figures = {"machine": common.machine(), "count": options.count, "networks": {}}
    for entry in options.network:
        label, _, path = entry.partition("=")
        network = keras.models.load_model(path, compile=False)
        logits = network.predict(images, verbose=0)
        correct = np.flatnonzero(np.argmax(logits, axis=1) == labels)[: options.count]
        second = np.argsort(-logits[correct], axis=1)[:, 1]
        figures["networks"][label] = {
            name: follow(network, name, images[correct], labels[correct], second)
            for name in ATTACKS
        }
    print(table(figures))
    common.write(options.json, figures)


def follow(network, name, x, y, target):
    """One attack's figures; targeted ones aim at `target`."""
    import soar_tf

    kind, arguments = ATTACKS[name]
    attack = soar_tf.attacks.get(kind, **arguments)
    search = pgd_states if kind == "pgd" else apgd_states
    repeated, broken = [np.full(len(x), attack.steps) for _ in range(2)]
    seen = [set() for _ in x]
    for k, (wrong, states) in enumerate(search(network, attack, x, y, target)):
        broken[wrong & (broken == attack.steps)] = k
        for row, state in enumerate(states):
            if broken[row] == attack.steps == repeated[row] and state in seen[row]:
                repeated[row] = k
            seen[row].add(state)
    saved = np.maximum(broken - repeated, 0)
    return {
        "survivors": int(np.sum(broken == attack.steps)),
        "cycles": int(np.sum(saved > 0)),
        "saved": float(saved.sum() / broken.sum()),
    }


def pgd_states(network, attack, x, y, target):
    """For each step, who is misclassified, and the state of each image as bytes."""
    import tensorflow as tf

    from soar_tf.attacks import as_logits_fn, working_set
    from soar_tf.ops import random

    logits_fn, y = as_logits_fn(network), tf.cast(y, tf.int64)

    @tf.function(autograph=False)
    def advance(point):
        logits, _, gradient = working_set.evaluate(
            logits_fn, lambda logits: attack._loss(y, logits), point
        )
        return logits, attack.advance(point, tf.constant(x), gradient, ())[0]

    keys = random.example_keys(0, tf.range(len(x)), purpose="attack")
    point = attack.start(tf.constant(x), random.derive(keys, 0))
    for _ in range(attack.steps):
        before = point.numpy()
        logits, point = advance(point)
        yield np.argmax(logits, axis=1) != y.numpy(), [row.tobytes() for row in before]


def apgd_states(network, attack, x, y, target):
    """As `pgd_states`, with the point before and the step size."""
    import tensorflow as tf

    from soar_tf.attacks import as_logits_fn
    from soar_tf.ops import random

    logits_fn, y = as_logits_fn(network), tf.cast(y, tf.int64)
    windows = tf.constant(attack._rule.windows(attack.steps))

    @tf.function(autograph=False)
    def advance(k, rows):
        logits, loss, gradient = attack._evaluate(logits_fn, rows)
        return logits, attack._advance(k, windows[k], rows, loss, gradient, attack.epsilon)

    keys = random.example_keys(0, tf.range(len(x)), purpose="attack")
    point = attack.start(tf.constant(x), random.derive(keys, 0))
    index, target = tf.range(len(x)), tf.cast(target, tf.int64)
    rows = attack._first_rows(index, tf.constant(x), y, target, point, attack.epsilon)
    for k in range(attack.steps):
        parts = [part.numpy() for part in (rows.point, rows.memory.previous, rows.memory.step)]
        logits, rows = advance(tf.constant(k), rows)
        states = [tuple(one.tobytes() for one in row) for row in zip(*parts, strict=True)]
        yield np.argmax(logits, axis=1) != y.numpy(), states


def table(figures):
    """The figures as Markdown."""
    lines = [
        "| network | attack | images | survivors | in a cycle | steps saved |",
        "|---|---|---|---|---|---|",
    ]
    for network, attacks in figures["networks"].items():
        for name, found in attacks.items():
            counts = [figures["count"], found["survivors"], found["cycles"]]
            cells = [network, name, *map(str, counts), f"{100 * found['saved']:.0f} %"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
