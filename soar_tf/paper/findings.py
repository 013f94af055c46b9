"""Findings that compare a table with the paper's: every number in them is computed."""

import itertools
import operator

import numpy as np


def orderings(grid):
    """Which of the paper's orderings of two rows, in one column, are reproduced.

    The paper orders two rows if their means differ by more than twice the sum of their standard
    deviations.

    Args:
        grid: The `soar_tf.paper.report.Grid`.

    Returns:
        The finding, or `None` if there is nothing to compare.

    Example:

    >>> from soar_tf.paper import findings
    >>> from soar_tf.paper.report import Grid
    >>> published = {"a": {"clean": (80, 1)}, "b": {"clean": (70, 1)}, "c": {"clean": (71, 1)}}
    >>> ours = {"a": {"clean": [60.0]}, "b": {"clean": [65.0]}, "c": {"clean": [50.0]}}
    >>> findings.orderings(Grid("t", "", ("clean",), ours, paper=published))
    "1 of the paper's 2 orderings of two rows in a column is reproduced. Not: a above b (clean)."
    """
    reproduced, reversed_pairs = 0, {}
    for column in grid.columns:
        rows = [
            row for row in grid.rows if grid.published(row, column) and column in grid.rows[row]
        ]
        for pair in itertools.combinations(rows, 2):
            (mean_a, deviation_a), (mean_b, deviation_b) = (
                grid.published(row, column) for row in pair
            )
            if abs(mean_a - mean_b) <= 2 * (deviation_a + deviation_b):
                continue
            above, below = pair if mean_a > mean_b else pair[::-1]
            if np.mean(grid.rows[above][column]) > np.mean(grid.rows[below][column]):
                reproduced += 1
            else:
                names = " above ".join(grid.labels.get(row, row) for row in (above, below))
                reversed_pairs.setdefault(names, []).append(grid.labels.get(column, column))
    count = reproduced + sum(map(len, reversed_pairs.values()))
    if not count:
        return None
    text = (
        f"{reproduced} of the paper's {count} orderings of two rows in a column "
        f"{'is' if reproduced == 1 else 'are'} reproduced."
    )
    if reversed_pairs:
        listed = "; ".join(f"{k} ({', '.join(columns)})" for k, columns in reversed_pairs.items())
        text += f" Not: {listed}."
    return text


def distances(grid):
    """The distance of each row from the paper's, averaged over the columns in the paper.

    Args:
        grid: The `soar_tf.paper.report.Grid`.

    Returns:
        The finding, with the nearest row first.

    Example:

    >>> from soar_tf.paper import findings
    >>> from soar_tf.paper.report import Grid
    >>> published = {row: {"clean": (80, 1), "fgsm": (50, 1)} for row in "ab"}
    >>> ours = {"a": {"clean": [60.0], "fgsm": [40.0]}, "b": {"clean": [76.0], "fgsm": [48.0]}}
    >>> findings.distances(Grid("t", "", ("clean", "fgsm"), ours, paper=published))
    "Mean distance from the paper's values, in points: b 3.0; a 15.0."
    """
    mean_gaps = {}
    for row, cells in grid.rows.items():
        gaps = [
            abs(float(np.mean(values)) - published[0])
            for column, values in cells.items()
            if (published := grid.published(row, column)) is not None
        ]
        mean_gaps[grid.labels.get(row, row)] = float(np.mean(gaps))
    nearest = sorted(mean_gaps.items(), key=operator.itemgetter(1))
    listed = "; ".join(f"{name} {gap:.1f}" for name, gap in nearest)
    return f"Mean distance from the paper's values, in points: {listed}."


def overstated(weak, strong, labels, images):
    """By how many points PGD20 overstates robustness compared with AutoAttack, on equal images.

    Args:
        weak, strong: Percentages under PGD20 and AutoAttack, `{row: [one per seed]}`.
        labels: Display names of the rows.
        images: Number of images.

    Returns:
        The finding.

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
