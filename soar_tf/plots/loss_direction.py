"""The loss along one direction, as in figure 1 of the paper."""

from soar_tf.plots import figures


def loss_direction(distances, losses, *, epsilon=None, direction="the direction"):
    """Draws the loss along a direction, one line per network or approximation.

    Args:
        distances: Distances from the image in units of the pixel range, ascending.
        losses: Maps names to the losses at these distances, in nats.
        epsilon: Radius to mark, in units of the pixel range, or `None`.
        direction: Name of the direction, for the axis label.

    Returns:
        A matplotlib `Figure`.

    Raises:
        InputError: If matplotlib is not installed.

    Reference:
        SOAR, arXiv:2004.01832, figure 1: how well expansions approximate the loss.

    Example:

    >>> from soar_tf import plots
    >>> figure = plots.loss_direction([0, 0.1], {"loss": [0.1, 2.0], "first order": [0.1, 0.9]})
    >>> figure.axes[0].get_ylabel()
    'cross-entropy in nats'
    """
    figure = figures.new_figure(6.4, 4.0)
    axes = figure.subplots()
    for number, (name, values) in enumerate(losses.items()):
        style = figures.style(number) | {"markersize": 3}
        axes.plot([255 * distance for distance in distances], values, label=name, **style)
    if epsilon is not None:
        axes.axvline(255 * epsilon, color="#555555", linewidth=1, label="epsilon")
    axes.set_xlabel(f"distance along {direction}, in 1/255 of the pixel range")
    axes.set_ylabel("cross-entropy in nats")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
