"""Curves of one quantity against another, on logarithmic or linear axes."""


def growth(panels):
    """Draws panels side by side, each with measured points and curves.

    Args:
        panels: List of dictionaries: `x` and `curves` (`{label: values}`, drawn as lines, or as
            points if the label begins with "measured"), `title`, `x_label`, `y_label`, and
            `log_x`, `log_y`.

    Returns:
        A matplotlib figure.

    Example:

    >>> from soar_tf.plots.growth import growth
    >>> panel = {"x": [1, 10], "curves": {"measured": [1, 100]}, "title": "squares",
    ...          "x_label": "d", "y_label": "d^2", "log_x": True, "log_y": True}
    >>> len(growth([panel]).axes)
    1
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5 * len(panels), 4))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for label, values in panel["curves"].items():
            style = "o" if label.startswith("measured") else "-"
            axes.plot(panel["x"], values, style, label=label)
        axes.set_title(panel["title"])
        axes.set_xlabel(panel["x_label"])
        axes.set_ylabel(panel["y_label"])
        if panel["log_x"]:
            axes.set_xscale("log")
        elif all(isinstance(value, int) for value in panel["x"]):  # such as epochs
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if panel["log_y"]:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.tight_layout()
    return figure
