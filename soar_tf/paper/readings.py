"""Which reading of SOAR's constants is the paper's: three of them, and two initialisations.

λ = 0.5 and a clip at 10 can be meant for the gradients of single examples, for those of a batch's
mean with the penalty averaged over the batch, or for those of a batch's mean with the penalty
summed over it. All networks fine-tune one standard network at the paper's rate of 0.002, for a
tenth of its epochs, the last two at a tenth of that rate. (The batch sum gets one epoch: after it
the network is a constant.)
"""

import dataclasses

from soar_tf.paper import measures, tables
from soar_tf.paper.report import Grid

DATASET = tables.readings.DATASET
NETWORKS = tables.readings.NETWORKS
# What training logs after each epoch, and how it is printed.
_LOGGED = {
    "unclipped": (
        100.0,
        "%",
        "Share of examples below the clip, whose penalty has a gradient: mean over each epoch.",
    ),
    "curvature_norm": (1.0, "", "Norm of eq. 11 before the clip: mean over each epoch."),
}


def report(study):
    """Measures the networks, and shows how many examples the penalty could still change."""
    found = tables.readings.report(study)
    return dataclasses.replace(found, grids=[*found.grids, *(_epochs(study, c) for c in _LOGGED)])


def _epochs(study, column):
    """One row per epoch: what each network's training logged in a column."""
    factor, unit, caption = _LOGGED[column]
    logs = {
        name: [study.log(name, seed, (column,))[column] for seed in study.seeds]
        for name in tables.readings.rows
    }
    epochs = max(len(log) for seeds in logs.values() for log in seeds)
    rows = {
        str(epoch + 1): {
            name: [factor * log[epoch] for log in seeds]
            for name, seeds in logs.items()
            if all(epoch < len(log) for log in seeds)
        }
        for epoch in range(epochs)
    }
    labels = {name: measures.LABELS[name] for name in logs}
    return Grid(column, caption, tuple(logs), rows, labels, unit=unit, corner="epoch")
