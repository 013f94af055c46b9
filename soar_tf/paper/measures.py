"""The measurements in the tables: percentages, one per network and seed."""

import numpy as np

from soar_tf import evaluation
from soar_tf.attacks import as_logits_fn
from soar_tf.attacks import get as get_attack
from soar_tf.attacks.attack import random_start
from soar_tf.ops import random
from soar_tf.paper import findings, published, recipes
from soar_tf.paper.report import Grid

LABELS = {
    "clean": "Standard accuracy",
    "fgsm": "FGSM",
    "pgd7": "PGD7",
    "pgd20": "PGD20",
    "autoattack": "AutoAttack",
    **{name: recipe.label for name, recipe in recipes.RECIPES.items()},
}


def accuracy(study, name, seed, attack=None, images=None):
    """Robust accuracy on test images; without an attack, clean accuracy.

    AutoAttack, which is slow, runs on the first images only.

    Args:
        study: The `Study`.
        name, seed: The network.
        attack: The attack as a string, or `None`.
        images: Number of test images; `None` for the budget's number.
    """
    slow = (attack or "").startswith("autoattack")
    default = study.limits.autoattack_images if slow else study.limits.images
    limit = default if images is None else images
    settings = {
        "network": study.network(name, seed),
        "attack": attack,
        "images": limit,
        "epsilon": study.epsilon,
        "seed": seed,
    }

    def compute():
        x, y = _test(study, name, limit)
        attacks = [] if attack is None else [get_attack(attack, epsilon=study.epsilon)]
        progress = study.progress(name, seed)
        logits = _logits(study, name, seed)
        result = evaluation.evaluate(logits, x, y, attacks, seed=seed, progress=progress)
        return 100.0 * (result.attacks[0].robust_accuracy if attacks else result.clean_accuracy)

    return study.measured("accuracy", settings, compute)


def transfer(study, sources, name, seed):
    """Accuracy on PGD20 examples crafted against other networks, `{source: percent}`."""
    settings = {f"source {source}": study.network(source, seed) for source in sources}
    settings |= {
        "network": study.network(name, seed),
        "images": study.limits.images,
        "epsilon": study.epsilon,
        "seed": seed,
    }

    def compute():
        x, y = _test(study, name, study.limits.images)
        attack = get_attack("pgd20", epsilon=study.epsilon)
        matrix = evaluation.transfer_matrix(
            {source: _logits(study, source, seed) for source in sources},
            {name: _logits(study, name, seed)},
            x,
            y,
            attack,
            seed=seed,
            progress=study.progress(name, seed),
        )
        return {s: 100.0 * float(row[0]) for s, row in zip(sources, matrix.accuracy, strict=True)}

    return study.measured("transfer", settings, compute)


def transformed(study, name, seed, transformation):
    """Accuracy on randomly transformed images: every image counts, as in appendices D and E."""
    settings = {
        "network": study.network(name, seed),
        "transformation": transformation,
        "images": study.limits.images,
        "seed": seed,
    }

    def compute():
        x, y = _test(study, name, study.limits.images)
        attack, logits_fn = get_attack(transformation), _logits_fn(study, name, seed)

        def logits(images, _, keys):
            return logits_fn(attack.transform(images, random.derive(keys, 0)))

        measure = evaluation.PerExample(logits, seed=seed, purpose="transformation")
        return 100.0 * float((measure(x, y).argmax(axis=1) == y).mean())

    return study.measured("transformed", settings, compute)


def top_probability(study, name, seed, point):
    """Mean probability of the most probable class at a point near each test image (table 5).

    Args:
        study: The `Study`.
        name, seed: The network.
        point: `"zero"` (the image), `"random"` (uniform in the ball) or `"pgd1"` (one PGD step
            from such a point).
    """
    settings = {
        "network": study.network(name, seed),
        "point": point,
        "seed": seed,
        "images": study.limits.images,
        "epsilon": study.epsilon,
    }

    def compute():
        x, y = _test(study, name, study.limits.images)
        logits_fn = _logits_fn(study, name, seed)
        attack = get_attack("pgd:steps=1", epsilon=study.epsilon)
        move = {
            "zero": lambda x, y, keys: x,
            "random": lambda x, y, keys: random_start(keys, x, study.epsilon, "linf", (0.0, 1.0)),
            "pgd1": lambda x, y, keys: attack.perturb(logits_fn, x, y, keys),
        }[point]

        def logits(images, labels, keys):
            return logits_fn(move(images, labels, keys))

        z = evaluation.PerExample(logits, seed=seed, purpose="top probability")(x, y)
        exponentials = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
        return 100.0 * float((1.0 / exponentials.sum(axis=1)).mean())

    return study.measured("top-probability", settings, compute)


def grid(study, name, caption, rows, columns, labels=None, *, linf=True):
    """A table of networks by measurements, over all seeds.

    Args:
        study: The `Study`.
        name: The table's name in `published.TABLES`.
        caption: What it shows; the number of images is appended.
        rows: Names of the networks.
        columns: Maps columns to `function(network's name, seed) -> percent`.
        labels: Display names, in addition to `LABELS`.
        linf: Whether attacks in the table use the data set's l-infinity radius.

    Returns:
        The `soar_tf.paper.report.Grid`.
    """
    cells = {
        row: {
            column: [measure(row, seed) for seed in study.seeds]
            for column, measure in columns.items()
        }
        for row in rows
    }
    images = study.limits.images or "all"
    radius = f", l-infinity ε = {study.epsilon:.4g}" if linf else ""
    caption += (
        f" Percent of {images} test images (AutoAttack, which the paper does not have: the first "
        f"{study.limits.autoattack_images}){radius}; the paper's values in parentheses."
    )
    return Grid(
        name,
        caption,
        tuple(columns),
        cells,
        {**LABELS, **(labels or {})},
        published.TABLES[name],
        "%",
        "Method",
    )


def overstatement(study, grid):
    """How much PGD20 overstates robustness, if the grid has AutoAttack as well; else `None`."""
    if not {"pgd20", "autoattack"} <= set(grid.columns):
        return None
    count = study.limits.autoattack_images
    weak = {
        row: [accuracy(study, row, seed, "pgd20", images=count) for seed in study.seeds]
        for row in grid.rows
    }
    strong = {row: cells["autoattack"] for row, cells in grid.rows.items()}
    return findings.overstated(weak, strong, grid.labels, count)


def _test(study, name, limit):
    images = study.dataset_of(name)["test"]
    images = images if limit is None else images.take(limit)
    return images.float_images(), images.labels


def _logits(study, name, seed):
    model = study.network(name, seed).model
    return model.network or model.logits_fn


def _logits_fn(study, name, seed):
    """The logits function that attacks use."""
    return as_logits_fn(_logits(study, name, seed))
