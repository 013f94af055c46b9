"""Table 3: PGD20 transferred from other networks."""

import functools

from soar_tf.paper import measures

DATASET = "cifar10"
TARGETS = ("standard", "adv7", "soar")
SOURCES = ("cnn-source", "resnet18")
NETWORKS = (*TARGETS, *SOURCES)


def transfer_columns(study):
    """One column a source, see `measures.transfer`."""

    def column(source, name, seed):
        return measures.transfer(study, SOURCES, name, seed)[source]

    return {source: functools.partial(column, source) for source in SOURCES}


def report(study):
    """Measures the networks of table 3; the sources are standard networks of another seed."""
    columns = transfer_columns(study)
    columns["autoattack"] = functools.partial(measures.accuracy, study, attack="autoattack")
    return measures.table(
        study, "table3", "Table 3: transferred attacks",
        "Accuracy under PGD20 examples crafted against other networks (columns).", TARGETS,
        columns,
    )  # fmt: skip
