"""Table 1: clean accuracy and white-box l-infinity attacks."""

import functools

from soar_tf.paper import measures

DATASET = "cifar10"
NETWORKS = ("standard", "adv7", "adv1-scratch", "adv1-pretrain", "soar")


def report(study):
    """Measures every network of table 1."""
    accuracy = functools.partial(measures.accuracy, study)
    columns = {"clean": accuracy} | {
        attack: functools.partial(accuracy, attack=attack)
        for attack in ("fgsm", "pgd7", "pgd20", "autoattack")
    }
    return measures.table(
        study, "table1", "Table 1: white-box l-infinity attacks",
        "Accuracy under white-box l-infinity attacks.", NETWORKS, columns,
    )  # fmt: skip
