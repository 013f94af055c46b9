"""Table 5: how sure the networks are, at and near the test images."""

import functools

from soar_tf.paper import measures

DATASET = "cifar10"
NETWORKS = (
    "standard", "adv7", "adv1-scratch", "adv1-pretrain", "soar-zero", "soar-random", "soar",
)  # fmt: skip


def report(study):
    """Measures the mean probability of the most probable class at three points."""
    columns = {
        point: functools.partial(measures.top_probability, study, point=point)
        for point in ("zero", "random", "pgd1")
    }
    columns["autoattack"] = functools.partial(measures.accuracy, study, attack="autoattack")
    labels = {"zero": "clean point", "random": "random point", "pgd1": "PGD1 point",
              "autoattack": "AutoAttack accuracy", "soar": "SOAR, PGD1 init"}  # fmt: skip
    return measures.table(
        study, "table5", "Table 5: mean top probability",
        "Mean probability of the most probable class.", NETWORKS, columns, labels,
    )  # fmt: skip
