"""Which interpretation of SOAR's constants is the paper's: three of them, with two initialisations.

λ = 0.5 and a clip at 10 can apply to per-example gradients, to gradients of the batch mean with the
penalty averaged over the batch, or to gradients of the batch mean with the penalty summed over it.
All networks fine-tune the same standard network at the paper's learning rate of 0.002, for a tenth
of its epochs, the last two at a tenth of that rate. (The batch sum gets one epoch, after which the
network is constant.)
"""

import dataclasses

from soar_tf.paper import measures, tables
from soar_tf.paper.report import Grid

DATASET = tables.readings.DATASET
NETWORKS = tables.readings.NETWORKS
# Logged columns: factor, unit and caption.
_LOGGED = {
    "unclipped": (
        100.0,
        "%",
        "Share of examples below the clip, whose penalty has a gradient: mean over each epoch.",
    ),
    "curvature_norm": (1.0, "", "Norm of eq. 11 before clipping: mean over each epoch."),
}


def report(study):
    """Measures the networks, and shows for how many examples the penalty has a gradient."""
    result = tables.readings.report(study)
    return dataclasses.replace(result, grids=[*result.grids, *(_epochs(study, c) for c in _LOGGED)])


def _epochs(study, column):
    """The logged values of a column, one row per epoch and one column per network."""
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
