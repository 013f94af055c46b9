"""Training curves of one or several runs: a panel per phase, each line labelled at its end."""

import itertools
import math
import statistics

from soar_tf.plots import figures

_LOSSES = ("loss", "val_loss")
_PLAIN = (*_LOSSES, "accuracy", "val_accuracy")
_EXPLODES = 10  # multiple of the median above which a linear axis would flatten everything else
_GAP = 0.075  # between two labels, as a share of the panel's height


def training_curves(logs):
    """Draws loss (above) and accuracy (below) against the epoch of each phase.

    Phases are side by side, in training order. Solid lines are training, dashed ones validation;
    each is labelled at its end. Every column whose name ends in `accuracy` is drawn. A loss axis is
    logarithmic if its largest value is over 10 times the median.

    Args:
        logs: Maps runs' names to lists of rows, dictionaries as written by
            `keras.callbacks.CSVLogger` or `soar-tf train`; a missing column or a value that is not
            finite leaves a gap. Rows without a `phase` belong to one unnamed phase.

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
    phases = list(dict.fromkeys(row.get("phase") for rows in logs.values() for row in rows))
    phases = phases or [None]
    figure = figures.new_figure(2.0 + 4.6 * len(phases), 6.8)
    panels = figure.subplots(2, len(phases), squeeze=False)
    for column, phase in enumerate(phases):
        phase_logs = {
            name: [row for row in rows if row.get("phase") == phase] for name, rows in logs.items()
        }
        loss_axes, accuracy_axes = panels[:, column]
        _panel(loss_axes, phase_logs, lambda name: name in _LOSSES, 1)
        _panel(accuracy_axes, phase_logs, lambda name: name.endswith("accuracy"), 100)
        if phase is not None:
            loss_axes.set_title(f"phase {phase}")
        _scale(loss_axes)
        accuracy_axes.set_ylim(-2, 102)
        accuracy_axes.set_xlabel("epoch" if phase is None else f"epoch of {phase}")
        for axes in (loss_axes, accuracy_axes):
            _label_lines(axes, short=len(logs) == 1)
    panels[0, 0].set_ylabel("loss")
    panels[1, 0].set_ylabel("accuracy in %")
    return figure


def _panel(axes, logs, selects, factor):
    """Draws one line per run and selected column, labelled `run: column`."""
    from matplotlib.ticker import MaxNLocator

    for number, (name, rows) in enumerate(logs.items()):
        extras = itertools.count()
        for column in filter(selects, dict.fromkeys(key for row in rows for key in row)):
            epochs, values = [], []
            for epoch, row in enumerate(rows, 1):
                if column in row:
                    epochs.append(epoch)
                    value = factor * row[column]
                    values.append(value if math.isfinite(value) else math.nan)
            marker = "" if column in _PLAIN else figures.MARKERS[next(extras) % 7]
            if sum(map(math.isfinite, values)) == 1:
                marker = marker or "o"  # a line of one point is invisible
            axes.plot(
                epochs,
                values,
                color=figures.COLORS[number % len(figures.COLORS)],
                label=f"{name}: {column}",
                linestyle="--" if column.startswith("val_") else "-",
                linewidth=1.4,
                marker=marker,
                markersize=3,
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _scale(axes):
    """Makes the loss axis logarithmic if a few values would flatten all others."""
    values = [v for line in axes.lines for v in line.get_ydata() if math.isfinite(v)]
    if values and max(values) > _EXPLODES * statistics.median(values):
        # A loss of 0 or below has no logarithm, so the axis is linear near 0.
        axes.set_yscale("log" if min(values) > 0 else "symlog")


def _label_lines(axes, *, short):
    """Labels each line beside its last point, shifting labels that would overlap."""
    axes.get_ylim()  # matplotlib sets limits late; the heights below depend on them
    ends = []
    for line in axes.lines:
        points = zip(line.get_xdata(), line.get_ydata(), strict=True)
        finite = [point for point in points if math.isfinite(point[1])]
        if finite:
            height = axes.transAxes.inverted().transform(axes.transData.transform(finite[-1]))[1]
            ends.append((height, finite[-1], line))
    ends.sort(key=lambda end: end[0])
    heights = _spread([height for height, _, _ in ends])
    for height, (_, point, line) in zip(heights, ends, strict=True):
        label = line.get_label()
        axes.annotate(
            label.rpartition(": ")[2] if short else label,
            xy=point,
            xytext=(1.03, height),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.5},
            color=line.get_color(),
            fontsize="small",
            verticalalignment="center",
        )


def _spread(heights):
    """Ascending heights, shifted up and then down to have a minimum gap between them."""
    gap = min(_GAP, 1 / max(1, len(heights) - 1))
    shifted = []
    for height in heights:
        shifted.append(max(height, shifted[-1] + gap) if shifted else max(height, 0.0))
    ceiling = 1.0
    for number in reversed(range(len(shifted))):
        shifted[number] = min(shifted[number], ceiling)
        ceiling = shifted[number] - gap
    return shifted
