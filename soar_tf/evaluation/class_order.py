"""Whether another order of the classes would explain what a network answers."""

import numpy as np

from soar_tf.models.findings import Finding

LEAST_IMAGES = 20
EXPLAINED, GAIN = 0.5, 0.3
"""The share of answers that an order must explain, and by how much that must exceed accuracy."""

_SHOWN = 12


def findings(predictions, labels):
    """A `Finding` if the confusion matrix is nearly a permutation other than the identity.

    That is: the most frequent answers to the images of each class are all different, they explain
    at least half of all answers, and at least 30 points more than the labels do. Folders whose
    names are numbers are the usual cause: as text, 10 comes before 2.

    Args:
        predictions: int `[N]`, the network's answers to clean images.
        labels: int `[N]`.

    Yields:
        At most one `Finding`, which leaves the network usable.

    Example:

    >>> import numpy as np
    >>> from soar_tf.evaluation import class_order
    >>> labels = np.arange(30) % 3
    >>> [finding.name for finding in class_order.findings((labels + 1) % 3, labels)]
    ['class_order']
    """
    if len(labels) < LEAST_IMAGES or predictions.min() < 0:
        return
    present = np.unique(labels)
    # Fewer than four images of a class, and the most frequent answer is chance.
    if len(present) < 2 or len(labels) < 4 * len(present):
        return
    confusion = np.zeros((int(labels.max()) + 1, int(predictions.max()) + 1), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    answers = confusion[present].argmax(axis=1)
    explained = confusion[present, answers].sum() / len(labels)
    accuracy = (predictions == labels).mean()
    if len(set(answers.tolist())) < len(present) or (answers == present).all():
        return
    if explained < EXPLAINED or explained < accuracy + GAIN:
        return
    moved = present[answers != present]
    pairs = ", ".join(f"{label} as {confusion[label].argmax()}" for label in moved[:_SHOWN])
    more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    yield Finding(
        "class_order",
        False,
        f"Another order of the classes would explain the labels: with it {explained:.1%} of the "
        f"clean images are classified correctly, and not {accuracy:.1%}. The network seems to know "
        f"class {pairs}{more}.",
    )
