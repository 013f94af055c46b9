"""Table 6: random rotations and translations."""

import functools

from soar_tf.paper import measures

DATASET = "cifar10"
NETWORKS = ("standard", "adv7", "soar")


def report(study):
    """Measures accuracy on images rotated and shifted at random."""
    columns = {
        strength: functools.partial(
            measures.transformed, study, transformation=f"spatial:strength={strength}"
        )
        for strength in ("weak", "medium", "strong")
    }
    columns["autoattack"] = functools.partial(measures.accuracy, study, attack="autoattack")
    return measures.table(
        study, "table6", "Table 6: rotations and translations",
        "Accuracy on images rotated and shifted at random.", NETWORKS, columns,
        {"weak": "Weak", "medium": "Medium", "strong": "Strong"},
    )  # fmt: skip
