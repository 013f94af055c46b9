"""Figure 3: clean and PGD20 accuracy during training with SOAR, for several λ."""

import numpy as np

from soar_tf.paper import measures, recipes
from soar_tf.paper.report import Grid, Report
from soar_tf.paper.study import ROBUSTNESS_IMAGES

DATASET = "cifar10"
NETWORKS = tuple(f"soar-lambda-{value:g}" for value in recipes.LAMBDAS)
# Columns of the log, both measured on validation images.
COLUMNS = {"clean": "val_accuracy", "pgd20": "val_pgd20_accuracy"}


def report(study):
    """Reads the logged accuracies of each training run, and runs AutoAttack on the last epoch."""
    logs = {
        name: [study.log(name, seed, tuple(COLUMNS.values())) for seed in study.seeds]
        for name in NETWORKS
    }
    curves, rows = {}, {}
    for name, seed_logs in logs.items():
        curves[name] = {
            column: np.mean([log[key] for log in seed_logs], axis=0).tolist()
            for column, key in COLUMNS.items()
        }
        rows[name] = {
            column: [100.0 * log[key][-1] for log in seed_logs] for column, key in COLUMNS.items()
        }
        rows[name]["autoattack"] = [
            measures.accuracy(study, name, seed, "autoattack") for seed in study.seeds
        ]
    caption = (
        "Accuracy after the last epoch, on validation images (PGD20: the first "
        f"{ROBUSTNESS_IMAGES[study.request.budget]}); λ = 0 is adversarial training with PGD1. "
        f"AutoAttack: the first {study.limits.autoattack_images} test images."
    )
    grid = Grid(
        "figure3", caption, (*COLUMNS, "autoattack"), rows, measures.LABELS, unit="%", corner="λ"
    )
    return Report(
        "Figure 3: accuracy during training", [grid], [], {"curves": curves}, lambda: _draw(curves)
    )


def _draw(curves):
    from soar_tf.plots.growth import growth

    epochs = len(next(iter(curves.values()))["clean"])
    panels = [
        {
            "x": list(range(1, epochs + 1)),
            "curves": {measures.LABELS[name]: values[column] for name, values in curves.items()},
            "title": measures.LABELS[column],
            "x_label": "epoch",
            "y_label": "accuracy",
            "log_x": False,
            "log_y": False,
        }
        for column in COLUMNS
    ]
    return growth(panels)
