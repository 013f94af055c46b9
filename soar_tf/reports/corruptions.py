"""The section of `soar-tf evaluate --corruptions`'s report."""

from soar_tf import corruptions

NOTE = (
    "Computed here from the evaluated images, by the recipes and constants published for CIFAR "
    "(arXiv:1903.12261). These are not the images of CIFAR-10-C."
)


def names(shape):
    """The corruptions that a report on images of this shape has, see `corruptions.names_for`."""
    return corruptions.names_for(tuple(shape))


def section(found):
    """The report's section, JSON-serializable.

    Args:
        found: A `soar_tf.evaluation.CorruptionAccuracies`.
    """
    own = found.to_dict()
    return {key: own[key] for key in ("mean", "by_severity", "accuracy")} | {"note": NOTE}
