"""Which SOAR is the paper's: two readings of its constants, and choices that it leaves open.

With PGD1 both readings are trained as long as SOAR in the tables. The second one from zero, and the
open choices, one made otherwise at a time, have fewer epochs in the short budget. What compares
with them has as few: the first reading from zero, shorter, and figure 3's network of λ = 0.5.
"""

import functools

from soar_tf.paper import findings, measures, published, table3
from soar_tf.paper.report import Report

DATASET = "cifar10"
ROWS = tuple(published.TABLES["readings"])
NETWORKS = (*ROWS, *table3.SOURCES)


def report(study):
    """Measures what tables 1, 4 and 5 tell SOAR networks by."""
    accuracy = functools.partial(measures.accuracy, study)
    columns = {
        "clean": accuracy,
        "fgsm": functools.partial(accuracy, attack="fgsm"),
        "pgd20": functools.partial(accuracy, attack="pgd20"),
        **table3.transfer_columns(study),
        "zero": functools.partial(measures.top_probability, study, point="zero"),
        "autoattack": functools.partial(accuracy, attack="autoattack"),
    }
    labels = {"zero": "mean top probability",
              "soar": "SOAR, per example", "soar-zero": "SOAR, per example, zero init",
              "soar-lambda-0.5": "SOAR, per example, shorter",
              "soar-zero-shorter": "SOAR, per example, zero init, shorter"}  # fmt: skip
    caption = "SOAR networks beside what the paper says of SOAR with the same initialisation."
    grid = measures.grid(study, "readings", caption, ROWS, columns, labels)
    notes = [findings.distances(grid), measures.overstatement(study, grid)]
    return Report("Which SOAR is the paper's?", [grid], notes, {"epsilon": study.epsilon})
