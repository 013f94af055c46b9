"""Images, their adversarial versions and the perturbations between them."""

import numpy as np

from soar_tf.plots import figures


def adversarial_examples(x, x_adv, captions=None):
    """Draws clean images, adversarial ones and magnified perturbations in three rows.

    Args:
        x: `[N, H, W, C]` images in [0, 1], C = 1 or 3.
        x_adv: Like `x`.
        captions: A pair of texts for each image: above the clean and above the adversarial one.

    Returns:
        A matplotlib `Figure`.

    Raises:
        InputError: If matplotlib is not installed.

    Example:

    >>> import numpy as np
    >>> from soar_tf import plots
    >>> x = np.zeros((2, 4, 4, 1))
    >>> len(plots.adversarial_examples(x, x + 0.1).axes)
    6
    """
    pictures, factor = magnified(x, x_adv)
    figure = figures.new_figure(1.3 * len(x) + 1.0, 4.6)
    grid = figure.subplots(3, len(x), squeeze=False)
    for row, images in zip(grid, (x, x_adv, pictures), strict=True):
        for axes, image in zip(row, images, strict=True):
            axes.imshow(
                image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1
            )
            axes.set_xticks([])
            axes.set_yticks([])
    for name, row in zip(("clean", "adversarial", f"change x {factor:.3g}"), grid, strict=True):
        row[0].set_ylabel(name)
    for column, texts in enumerate(captions or ()):
        for row, text in zip(grid, texts, strict=False):
            row[column].set_title(text, fontsize="x-small")
    return figure


def magnified(x, x_adv):
    """Perturbations as pictures, grey where nothing changed, and their magnification.

    Args:
        x: float `[N, ...]`.
        x_adv: Like `x`.

    Returns:
        `(pictures [N, ...] in [0, 1], factor)`: the largest change fills the range.
    """
    change = np.asarray(x_adv, np.float64) - x
    largest = np.abs(change).max(initial=0.0)
    factor = 0.5 / largest if largest > 0 else 1.0
    return 0.5 + factor * change, factor
