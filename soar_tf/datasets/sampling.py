"""Which examples are chosen where not all are: the only file that draws from NumPy's generators.

`RandomState` is used because NumPy guarantees that its stream never changes.
"""

import numpy as np


def stratified(labels, fraction, seed, total=None):
    """Chooses about `fraction` of the examples, the same share of every class.

    Args:
        labels: int `[N]`.
        fraction: Share to choose, in (0, 1); at least one example of every class that has two.
        seed: Int that fixes the choice.
        total: Number of examples to choose instead, less than N: each class gets its share of it,
            rounded down, and those with the largest remainders one more.

    Returns:
        bool `[N]`: true where chosen.
    """
    chosen = np.zeros(len(labels), bool)
    random = np.random.RandomState(seed % 2**32)
    classes, sizes = np.unique(labels, return_counts=True)
    if total is None:
        counts = [min(max(1, round(fraction * n)), n - 1) if n > 1 else 0 for n in sizes]
    else:
        shares = total * sizes / len(labels)
        counts = np.floor(shares).astype(int)
        counts[np.argsort(counts - shares, kind="stable")[: total - counts.sum()]] += 1
    for label, count in zip(classes, counts, strict=True):
        members = random.permutation(np.flatnonzero(labels == label))
        chosen[members[:count]] = True
    return chosen


def sample(labels, count):
    """Chooses `count` examples, as nearly as possible the same share of every class.

    Every class gets its first example before any class of its size gets a second; which classes
    come first is drawn. The choice depends on nothing but the labels, and a smaller sample is part
    of a larger one.

    Args:
        labels: int `[N]`.
        count: Number of examples, at most N.

    Returns:
        int64 `[count]`: rising positions.

    Example:

    >>> import numpy as np
    >>> from soar_tf.datasets.sampling import sample
    >>> labels = np.repeat([0, 1, 2], [40, 20, 20])
    >>> np.bincount(labels[sample(labels, 8)])
    array([4, 2, 2])
    """
    drawn = np.random.RandomState(0).permutation(len(labels))
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(starts, sizes)
    place = np.empty(len(labels))
    place[by_class] = (rank + 0.5) / np.repeat(sizes, sizes)
    return np.sort(drawn[np.argsort(place[drawn], kind="stable")[:count]])
