"""Figure 2: SOAR's penalty estimated from 1 and from many random directions, after each epoch."""

import numpy as np

from soar_tf.paper.report import Grid, Report

DATASET = "cifar10"
NETWORKS = ("soar",)


def report(study):
    """Reads the penalties logged by SOAR's training; see `soar_tf.callbacks.CurvatureMonitor`."""
    many = 5 if study.request.budget == "smoke" else 100
    columns = ("curvature_1", f"curvature_{many}")
    logs = [study.log("soar", seed, columns) for seed in study.seeds]
    rows = {}
    for epoch in range(len(logs[0][columns[0]])):
        cells = {column: [log[column][epoch] for log in logs] for column in columns}
        ratios = [a / b for a, b in zip(*cells.values(), strict=True)]
        rows[str(epoch + 1)] = {**cells, "ratio": ratios}
    labels = {columns[0]: "1 direction", columns[1]: f"{many} directions", "ratio": "ratio"}
    grid = Grid(
        "figure2",
        "Mean unclipped penalty (eq. 11) over training images at x', after each epoch.",
        (*columns, "ratio"),
        rows,
        labels,
        corner="epoch",
    )
    ratios = [ratio for row in rows.values() for ratio in row["ratio"]]
    findings = [
        f"One direction gives {min(ratios):.3f} to {max(ratios):.3f} times the mean over {many}."
    ]
    return Report(
        "Figure 2: the penalty during training",
        [grid],
        findings,
        {},
        lambda: _draw(rows, columns, labels),
    )


def _draw(rows, columns, labels):
    from soar_tf.plots.growth import growth

    curves = {
        labels[column]: [float(np.mean(row[column])) for row in rows.values()] for column in columns
    }
    panel = {
        "x": [int(row) for row in rows],
        "curves": curves,
        "title": "SOAR's penalty",
        "x_label": "epoch",
        "y_label": "mean penalty",
        "log_x": False,
        "log_y": False,
    }
    return growth([panel])
