"""Training curves of one or several runs."""

from soar_tf.plots import figures

_LOSSES = ("loss", "val_loss")


def training_curves(logs):
    """Draws loss and accuracy against the epoch, all runs in one picture.

    Solid lines are training, dashed ones validation; a dotted vertical line is where a run's
    next phase begins. Every column whose name ends in `accuracy` is drawn.

    Args:
        logs: Maps runs' names to lists of rows, dictionaries as `keras.callbacks.CSVLogger` or
            `soar-tf train` write them; rows without a column leave a gap.

    Returns:
        A matplotlib `Figure`.

    Raises:
        InputError: If matplotlib is not installed.

    Example:

    >>> from soar_tf import plots
    >>> rows = [{"epoch": 1, "loss": 2.0, "accuracy": 0.5}, {"epoch": 2, "loss": 1.0}]
    >>> [axes.get_ylabel() for axes in plots.training_curves({"run": rows}).axes]
    ['loss', 'accuracy in %']
    """
    figure = figures.new_figure(10.5, 4.2)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for number, (name, rows) in enumerate(logs.items()):
        color = figures.COLORS[number % len(figures.COLORS)]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        _lines(loss_axes, name, rows, [c for c in columns if c in _LOSSES], color, 1)
        accuracies = [c for c in columns if c.endswith("accuracy")]
        _lines(accuracy_axes, name, rows, accuracies, color, 100)
        for axes in (loss_axes, accuracy_axes):
            for epoch in _phase_starts(rows):
                axes.axvline(epoch, color=color, linestyle=":", linewidth=0.8)
    loss_axes.set_ylabel("loss")
    accuracy_axes.set_ylabel("accuracy in %")
    accuracy_axes.set_ylim(-2, 102)
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="x-small")
    return figure


def _lines(axes, name, rows, columns, color, factor):
    extras = 0
    for column in columns:
        plain = column in ("loss", "val_loss", "accuracy", "val_accuracy")
        extras += not plain
        epochs = [number for number, row in enumerate(rows, 1) if column in row]
        values = [factor * row[column] for row in rows if column in row]
        axes.plot(
            epochs, values, color=color, linewidth=1.4, label=f"{name}: {column}",
            linestyle="--" if column.startswith("val_") else "-", markersize=3,
            marker="" if plain else figures.MARKERS[extras % len(figures.MARKERS)],
        )  # fmt: skip


def _phase_starts(rows):
    phases = [row.get("phase") for row in rows]
    return [k + 0.5 for k in range(1, len(rows)) if phases[k] != phases[k - 1]]
