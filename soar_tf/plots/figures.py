"""Shared by all plots: creating and saving figures, and colours that everyone can distinguish."""

import importlib
import io

from soar_tf import files
from soar_tf.errors import InputError

# Okabe and Ito's palette for colour-blind readers; lines differ in their dashes as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DPI = 120


def available():
    """Whether matplotlib is installed."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def new_figure(width, height):
    """An empty figure of this size in inches, without pyplot: no window, no global state.

    Raises:
        InputError: If matplotlib is not installed.
    """
    if not available():
        raise InputError(
            "Plots need matplotlib, which is not installed: pip install 'soar-tf[plots]'."
        )
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure):
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def save(figure, path):
    """Writes the figure as a PNG, atomically."""
    with files.replacing(path) as temporary:
        temporary.write_bytes(to_png(figure))


def style(number):
    """Colour, dashes and marker of the line with this number, as keyword arguments."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4,
    }
