"""Two networks judged on the same images: the difference, and whether chance explains it."""

import dataclasses
import math

import numpy as np

from soar_tf.errors import InputError
from soar_tf.evaluation.intervals import paired_difference
from soar_tf.evaluation.results import Evaluation


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two networks' worst-case accuracies on the same images.

    Attributes:
        n: Number of images.
        accuracy: Worst-case accuracy of the first and the second network.
        both: Number of images that both withstand.
        neither: Number of images that neither withstands.
        only_first: int64 array, positions of the images that only the first network withstands.
        only_second: int64 array, those that only the second one withstands.
        p_value: Of McNemar's exact test: how likely a split of these images at least as uneven is
            if both networks are equally robust.
        interval: 95 % interval of `difference`, `(low, high)`: sampling error only.
    """

    n: int
    accuracy: tuple
    both: int
    neither: int
    only_first: np.ndarray = dataclasses.field(repr=False)
    only_second: np.ndarray = dataclasses.field(repr=False)
    p_value: float
    interval: tuple

    @property
    def difference(self):
        """The first network's accuracy minus the second one's."""
        return (len(self.only_first) - len(self.only_second)) / self.n

    def to_dict(self):
        """The comparison, JSON-serializable."""
        return {
            "n": self.n,
            "accuracy": list(self.accuracy),
            "difference": self.difference,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "both": self.both,
            "neither": self.neither,
            "only_first": self.only_first.tolist(),
            "only_second": self.only_second.tolist(),
        }


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compares two networks' robustness, image by image.

    Images that both networks withstand, or neither, say nothing about which one is more robust.
    McNemar's test asks of the others whether their split is more uneven than that of fair coins.
    Being paired, it needs far fewer images than a comparison of two intervals.

    Args:
        first: `Evaluation` of the first network.
        second: `Evaluation` of the second one, on the same images under the same threat models.

    Returns:
        A `Comparison`.

    Raises:
        InputError: If images or threat models differ. Images are told apart by their labels and
            positions alone, since an `Evaluation` does not hold them.

    Reference:
        Q. McNemar, Note on the sampling error of the difference between correlated proportions or
        percentages, 1947.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(20)
    >>> results = [
    ...     soar_tf.evaluate(network, digits.float_images(), digits.labels, ["fgsm"])
    ...     for network in (soar_tf.networks.mlp(), soar_tf.networks.mlp())]
    >>> found = soar_tf.evaluation.compare(*results)
    >>> found.n, found.both + found.neither + len(found.only_first) + len(found.only_second)
    (20, 20)
    """
    tables = [result.examples.columns() for result in (first, second)]
    for column in ("index", "label"):
        if not np.array_equal(tables[0][column], tables[1][column]):
            raise InputError(
                "`second` must be an evaluation of the same images as `first`: the images' "
                f"{'positions' if column == 'index' else 'labels'} differ."
            )
    one, two = (
        sorted({(attack.norm or "-", attack.epsilon or 0.0) for attack in result.attacks})
        for result in (first, second)
    )
    if one != two:
        raise InputError(
            "`second` must be an evaluation under the same threat models as `first`. Received: "
            f"{_named(two)} instead of {_named(one)}."
        )
    robust = [table["broken_by"] == "" for table in tables]
    return paired(*robust, tables[0]["index"])


def paired(first, second, positions=None):
    """A `Comparison` from each image's outcome.

    Args:
        first: bool `[N]`, whether the first network withstands each image.
        second: bool `[N]`, the same of the second one.
        positions: int `[N]`, the images' positions; `None` for 0 to N - 1.

    Raises:
        InputError: If they are empty or of different lengths.

    Example:

    >>> import numpy as np
    >>> from soar_tf.evaluation.comparison import paired
    >>> found = paired(np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool))
    >>> found.difference, found.only_first.tolist(), found.p_value
    (0.5, [1, 2], 0.5)
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise InputError(
            "`second` must hold one outcome for each of `first`, at least one. Received shapes "
            f"{first.shape} and {second.shape}."
        )
    positions = np.arange(len(first)) if positions is None else np.asarray(positions)
    n, ahead, behind = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    return Comparison(
        n=n,
        accuracy=(float(first.mean()), float(second.mean())),
        both=int((first & second).sum()),
        neither=int((~first & ~second).sum()),
        only_first=positions[first & ~second],
        only_second=positions[second & ~first],
        p_value=mcnemar(ahead, behind),
        interval=paired_difference(ahead, behind, n),
    )


def mcnemar(only_first, only_second):
    """The two-sided p-value of McNemar's exact test: a binomial test with probability 1/2.

    Args:
        only_first: Number of images that only the first network withstands.
        only_second: Number of those that only the second one withstands.

    Returns:
        The probability of a split at least as uneven; 1 if there are no such images.

    Example:

    >>> from soar_tf.evaluation.comparison import mcnemar
    >>> mcnemar(5, 0), mcnemar(3, 3)
    (0.0625, 1.0)
    """
    total = only_first + only_second
    # Whole numbers of any size: nothing is rounded before the last division.
    term = tail = 1
    for k in range(1, min(only_first, only_second) + 1):
        term = term * (total - k + 1) // k
        tail += term
    return min(2 * tail / 2**total, 1.0) if total < 1000 else min(_ratio(2 * tail, total), 1.0)


def _ratio(numerator, bits):
    """`numerator / 2 ** bits` where both are too large for floats."""
    excess = max(numerator.bit_length() - 64, 0)
    return math.ldexp(float(numerator >> excess), excess - bits)


def _named(threats):
    return " and ".join(
        f"{norm} {epsilon:.4g}" if norm != "-" else "transformations" for norm, epsilon in threats
    )
