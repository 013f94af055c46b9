"""Accuracy against the radius of the perturbation."""

from soar_tf.plots import figures


def accuracy_epsilon(curves, *, points=None):
    """Draws accuracy against epsilon, one line per network, with a 95 % band.

    Args:
        curves: Maps names to dictionaries with `epsilons` (units of the pixel range), `accuracy`
            (shares), `norm`, `attack` and, for the band, `low` and `high` (shares).
        points: Maps names to `(epsilon, accuracy)` of single measurements to mark, such as the
            worst case over several attacks.

    Returns:
        A matplotlib `Figure`.

    Raises:
        InputError: If matplotlib is not installed.

    Example:

    >>> from soar_tf import plots
    >>> curve = {"epsilons": [0, 0.1], "accuracy": [1.0, 0.2], "norm": "linf", "attack": "pgd20"}
    >>> plots.accuracy_epsilon({"a network": curve}).axes[0].get_ylabel()
    'accuracy in %'
    """
    figure = figures.new_figure(6.4, 4.0)
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        style = figures.style(number)
        scaled = [255 * epsilon for epsilon in curve["epsilons"]]
        axes.plot(scaled, _percent(curve["accuracy"]), label=f"{name}, {curve['attack']}", **style)
        if "low" in curve:
            axes.fill_between(
                scaled,
                _percent(curve["low"]),
                _percent(curve["high"]),
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
    for number, (name, (epsilon, accuracy)) in enumerate((points or {}).items()):
        axes.plot(
            [255 * epsilon],
            [100 * accuracy],
            "*",
            markersize=13,
            label=name,
            color=figures.COLORS[(len(curves) + number) % len(figures.COLORS)],
        )
    norms = sorted({curve["norm"].capitalize() for curve in curves.values()})
    axes.set_xlabel(f"{' / '.join(norms)} radius in 1/255 of the pixel range")
    axes.set_ylabel("accuracy in %")
    axes.set_ylim(-2, 102)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _percent(shares):
    return [100 * share for share in shares]
