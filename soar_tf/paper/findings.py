"""Sentences on a table beside the paper's: every figure in them is computed."""

import itertools
import operator

import numpy as np


def orderings(grid):
    """Which of the paper's orderings of two rows, in one column, hold here.

    An ordering is the paper's if the means differ by more than twice the sum of its standard
    deviations.

    Args:
        grid: The `soar_tf.paper.report.Grid`.

    Returns:
        A sentence, or `None` if there is nothing to compare.

    Example:

    >>> from soar_tf.paper import findings
    >>> from soar_tf.paper.report import Grid
    >>> published = {"a": {"clean": (80, 1)}, "b": {"clean": (70, 1)}, "c": {"clean": (71, 1)}}
    >>> ours = {"a": {"clean": [60.0]}, "b": {"clean": [65.0]}, "c": {"clean": [50.0]}}
    >>> findings.orderings(Grid("t", "", ("clean",), ours, paper=published))
    'Of the 2 orderings of two rows in a column that the paper shows, 1 holds here. Not: a above b (clean).'
    """  # noqa: E501
    held, turned = 0, {}
    for column in grid.columns:
        rows = [
            row for row in grid.rows if grid.published(row, column) and column in grid.rows[row]
        ]
        for pair in itertools.combinations(rows, 2):
            (first, spread), (second, other) = (grid.published(row, column) for row in pair)
            if abs(first - second) <= 2 * (spread + other):
                continue
            above, below = pair if first > second else pair[::-1]
            if np.mean(grid.rows[above][column]) > np.mean(grid.rows[below][column]):
                held += 1
            else:
                names = " above ".join(grid.labels.get(row, row) for row in (above, below))
                turned.setdefault(names, []).append(grid.labels.get(column, column))
    count = held + sum(map(len, turned.values()))
    if not count:
        return None
    sentence = (
        f"Of the {count} orderings of two rows in a column that the paper shows, {held} "
        f"{'holds' if held == 1 else 'hold'} here."
    )
    if turned:
        listed = "; ".join(f"{names} ({', '.join(where)})" for names, where in turned.items())
        sentence += f" Not: {listed}."
    return sentence


def distances(grid):
    """How far each row is from the paper's: the mean over the columns that the paper has.

    Args:
        grid: The `soar_tf.paper.report.Grid`.

    Returns:
        A sentence, the nearest row first.

    Example:

    >>> from soar_tf.paper import findings
    >>> from soar_tf.paper.report import Grid
    >>> published = {row: {"clean": (80, 1), "fgsm": (50, 1)} for row in "ab"}
    >>> ours = {"a": {"clean": [60.0], "fgsm": [40.0]}, "b": {"clean": [76.0], "fgsm": [48.0]}}
    >>> findings.distances(Grid("t", "", ("clean", "fgsm"), ours, paper=published))
    "Mean distance from the paper's figures, in points: b 3.0; a 15.0."
    """
    found = {}
    for row, cells in grid.rows.items():
        gaps = [
            abs(float(np.mean(values)) - published[0])
            for column, values in cells.items()
            if (published := grid.published(row, column)) is not None
        ]
        found[grid.labels.get(row, row)] = float(np.mean(gaps))
    nearest = sorted(found.items(), key=operator.itemgetter(1))
    listed = "; ".join(f"{name} {gap:.1f}" for name, gap in nearest)
    return f"Mean distance from the paper's figures, in points: {listed}."


def overstated(weak, strong, labels, images):
    """How many points PGD20 leaves that AutoAttack takes, on the same images.

    Args:
        weak, strong: Percentages under PGD20 and AutoAttack, `{row: [one a seed]}`.
        labels: What rows are called in print.
        images: Number of images.

    Returns:
        A sentence.

    Example:

    >>> from soar_tf.paper import findings
    >>> findings.overstated({"soar": [20.0]}, {"soar": [12.5]}, {"soar": "SOAR"}, 200)
    'On the same 200 images, PGD20 leaves more than AutoAttack: SOAR 7.5 points (20.0, 12.5 %).'
    """
    listed = []
    for row, values in weak.items():
        pgd, autoattack = float(np.mean(values)), float(np.mean(strong[row]))
        name = labels.get(row, row)
        listed.append(f"{name} {pgd - autoattack:.1f} points ({pgd:.1f}, {autoattack:.1f} %)")
    return f"On the same {images} images, PGD20 leaves more than AutoAttack: {'; '.join(listed)}."
