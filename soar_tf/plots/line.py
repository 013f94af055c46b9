"""The loss along a line and its expansions (figures 1 and 4 of the SOAR paper)."""

import math

_STYLES = {"exact": "r-", "exact Hessian": "b--", "first order": "k:"}


def loss_along_line(t, panels):
    """Draws small panels, one per line: the exact loss and its Taylor expansions.

    Args:
        t: Positions along the line, from 0 to 1.
        panels: List of dictionaries: `title`, and `curves` that maps labels to losses at `t`. The
            exact curves are drawn thick, the first-order one dotted.

    Returns:
        A matplotlib figure.

    Example:

    >>> from soar_tf.plots.line import loss_along_line
    >>> curves = {"exact": [0.0, 1.0], "first order": [0.0, 0.9]}
    >>> len(loss_along_line([0.0, 1.0], [{"title": "image 0", "curves": curves}]).axes)
    1
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(1.5 + 3.5 * columns, 3.3 * rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        steps = [label for label in panel["curves"] if label not in _STYLES]
        for label, values in panel["curves"].items():
            if label in _STYLES:
                axes.plot(t, values, _STYLES[label], linewidth=2.2, label=label)
            else:  # from small to large steps
                shade = colormaps["viridis"](steps.index(label) / max(1, len(steps) - 1))
                axes.plot(t, values, color=shade, linewidth=1.2, label=label)
        axes.set_title(panel["title"], fontsize="small")
        axes.set_xlabel("t")
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.remove()
    grid[0].set_ylabel("loss at x + tη")
    figure.legend(
        *grid[0].get_legend_handles_labels(), loc="outside right center", fontsize="small"
    )
    figure.set_layout_engine("constrained")
    return figure
