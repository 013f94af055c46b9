"""The transfer matrix as a heat map."""

from soar_tf.plots import figures


def transfer_heat_map(rows, columns, shares, *, title=""):
    """Draws accuracies as a heat map annotated with their values.

    Args:
        rows: Names of the targets, from top to bottom.
        columns: Names of the columns: white-box, then the sources.
        shares: Accuracies `[rows][columns]`, shares.
        title: The title.

    Returns:
        A matplotlib `Figure`.

    Raises:
        InputError: If matplotlib is not installed.

    Example:

    >>> from soar_tf import plots
    >>> figure = plots.transfer_heat_map(["soar"], ["white-box", "from standard"], [[0.2, 0.15]])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['20.0', '15.0']
    """
    figure = figures.new_figure(3.5 + 1.2 * len(columns), 2.5 + 0.6 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            color = "white" if share < 0.5 else "black"
            axes.text(j, i, f"{100 * share:.1f}", ha="center", va="center", color=color)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0", "25", "50", "75", "100"])
    bar.set_label("accuracy in %")
    axes.set_title(title)
    return figure
