"""Table 4: SOAR from three initialisations, white-box and by transfer."""

import functools

from soar_tf.paper import measures, table3

DATASET = "cifar10"
ROWS = ("soar-zero", "soar-random", "soar")
NETWORKS = (*ROWS, *table3.SOURCES)


def report(study):
    """Measures SOAR with each initialisation; a masked gradient shows in the transfer columns."""
    accuracy = functools.partial(measures.accuracy, study)
    columns = {
        "clean": accuracy,
        "pgd20": functools.partial(accuracy, attack="pgd20"),
        **table3.transfer_columns(study),
        "autoattack": functools.partial(accuracy, attack="autoattack"),
    }
    return measures.table(
        study, "table4", "Table 4: initialisations of SOAR",
        "Accuracy of SOAR networks, under white-box PGD20 and PGD20 from other networks.", ROWS,
        columns, {"soar": "SOAR, PGD1 init"},
    )  # fmt: skip
