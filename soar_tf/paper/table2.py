"""Table 2: l2-PGD with 100 steps."""

import functools

from soar_tf.paper import measures

DATASET = "cifar10"
NETWORKS = ("standard", "adv7", "soar")
RADII = ("20/255", "40/255", "60/255")


def report(study):
    """Measures the networks of table 2; AutoAttack is the l2 one, at the largest radius."""
    attacks = {radius: f"l2pgd100:epsilon={radius}" for radius in RADII}
    attacks["autoattack"] = f"autoattack:norm=l2,epsilon={RADII[-1]}"
    columns = {
        column: functools.partial(measures.accuracy, study, attack=attack)
        for column, attack in attacks.items()
    }
    labels = {radius: f"l2, ε = {radius}" for radius in RADII}
    labels["autoattack"] = f"l2 AutoAttack, ε = {RADII[-1]}"
    return measures.table(
        study, "table2", "Table 2: l2 attacks", "Accuracy under l2-PGD with 100 steps.",
        NETWORKS, columns, labels, linf=False,
    )  # fmt: skip
