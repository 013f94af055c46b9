"""Which reading of SOAR's constants is the paper's: three of them, and two initialisations.

λ = 0.5 and a clip at 10 can be meant for the gradients of single examples, for those of a batch's
mean with the penalty averaged over the batch, or for those of a batch's mean with the penalty
summed over it. All networks fine-tune one standard network at the paper's rate of 0.002, for a
tenth of its epochs, the last two at a tenth of that rate. (The batch sum gets one epoch: after it
the network is a constant.)
"""

import functools

from soar_tf.paper import findings, measures, published
from soar_tf.paper.report import Report

DATASET = "cifar10"
ROWS = tuple(published.TABLES["readings"])
NETWORKS = (*ROWS, "cnn-source")


def report(study):
    """Measures what tables 1, 3, 4 and 5 tell SOAR networks by."""
    accuracy = functools.partial(measures.accuracy, study)
    columns = {
        "clean": accuracy,
        "fgsm": functools.partial(accuracy, attack="fgsm"),
        "pgd7": functools.partial(accuracy, attack="pgd7"),
        "pgd20": functools.partial(accuracy, attack="pgd20"),
        "cnn-source": lambda name, seed: measures.transfer(study, ["cnn-source"], name, seed)[
            "cnn-source"
        ],
        "zero": functools.partial(measures.top_probability, study, point="zero"),
        "autoattack": functools.partial(accuracy, attack="autoattack"),
    }
    labels = {"zero": "mean top probability"}
    caption = "SOAR networks beside what the paper says of SOAR with the same initialisation."
    grid = measures.grid(study, "readings", caption, ROWS, columns, labels)
    notes = [findings.distances(grid), measures.overstatement(study, grid)]
    title = "Which reading of SOAR's constants is the paper's?"
    return Report(title, [grid], notes, {"epsilon": study.epsilon})
