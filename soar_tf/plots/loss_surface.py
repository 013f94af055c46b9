"""A slice of the loss surface: two directions through an image."""

from soar_tf.plots import figures


def loss_surface(first, second, losses, *, epsilon=None, labels=("gradient signs", "random signs")):
    """Draws the loss over a plane of two directions as filled contours.

    Args:
        first: Distances along the first direction, in units of the pixel range, ascending.
        second: Distances along the second direction.
        losses: `[len(second)][len(first)]`, in nats.
        epsilon: Radius of the Linf ball to mark around 0 if both directions are signs, or `None`.
        labels: Names of the directions, for the axis labels.

    Returns:
        A matplotlib `Figure`.

    Raises:
        InputError: If matplotlib is not installed.

    Example:

    >>> from soar_tf import plots
    >>> figure = plots.loss_surface([0, 0.1], [0, 0.1], [[0.1, 1.0], [0.2, 1.1]])
    >>> figure.axes[0].get_xlabel()
    'gradient signs, in 1/255 of the pixel range'
    """
    figure = figures.new_figure(6.0, 4.8)
    axes = figure.subplots()
    x, y = ([255 * distance for distance in distances] for distances in (first, second))
    filled = axes.contourf(x, y, losses, levels=15, cmap="cividis")
    axes.contour(x, y, losses, levels=15, colors="black", linewidths=0.3)
    if epsilon is not None:
        radius = 255 * epsilon
        # |a + b| <= r and |a - b| <= r: for pixels whose signs agree, and for those that differ.
        axes.plot(
            [radius, 0, -radius, 0, radius], [0, radius, 0, -radius, 0], "w--", label="the ball"
        )
        axes.legend(fontsize="small")
    axes.set_xlabel(f"{labels[0]}, in 1/255 of the pixel range")
    axes.set_ylabel(f"{labels[1]}, in 1/255 of the pixel range")
    figure.colorbar(filled, ax=axes, label="cross-entropy in nats")
    return figure
