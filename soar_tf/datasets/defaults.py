"""What a data set is trained with unless told otherwise; imports nothing heavy."""

from soar_tf.errors import InputError
from soar_tf.threat_model import ThreatModel

# What a data set is trained with unless told otherwise. Epsilon is its usual l-infinity radius;
# on the 8x8 digits, 0.15 is where a standard network fails and a robust one still can hold.
# During the first `epsilon_warmup` of the epochs, methods that attack a network without training
# let epsilon grow from 0: at once at full strength, small networks learn to ignore the image
# (10 % accuracy on CIFAR-10 from the first epoch on).
_RECIPES = {
    "digits": {
        "network": "cnn2",
        "epsilon": 0.15,
        "epochs": 60,
        "pretrain_epochs": 30,
        "batch_size": 64,
        "epsilon_warmup": 0,
    },
    "mnist": {"network": "cnn4", "epsilon": 0.3},
    "fashion_mnist": {"network": "cnn4", "epsilon": 0.1},
}
_DEFAULT_RECIPE = {
    "network": "cnn4",
    "epsilon": 8 / 255,
    "epochs": 15,
    "pretrain_epochs": 24,
    "batch_size": 128,
    "epsilon_warmup": 0.25,
}


# Radii of other norms that results on images of 32x32x3 pixels are given for: l2 0.5 in
# RobustBench, l1 12 in the papers of AutoAttack for l1.
_OTHER_RADII = {"l2": 0.5, "l1": 12.0}
_SETS_WITH_OTHER_RADII = ("cifar10", "cifar100")


def threat_model(dataset, norm="linf"):
    """The `ThreatModel` that a data set's results are usually given for.

    Args:
        dataset: Its name.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Raises:
        InputError: For an unknown norm, or where no radius of this norm is usual.

    Example:

    >>> from soar_tf.datasets import defaults
    >>> print(defaults.threat_model("cifar10", "l2"))
    L2 0.5
    """
    if norm == "linf":
        return ThreatModel("linf", recipe(dataset)["epsilon"])
    if norm in _OTHER_RADII and dataset not in _SETS_WITH_OTHER_RADII:
        raise InputError(
            f"`epsilon` is needed with norm {norm!r}: data set {dataset!r} has no usual radius."
        )
    return ThreatModel(norm, _OTHER_RADII.get(norm, 0.0))


def recipe(dataset):
    """The defaults for a data set.

    Returns:
        A dictionary of `network`, `epsilon`, `epochs`, `pretrain_epochs`, `batch_size` and
        `epsilon_warmup`, the share of the epochs in which epsilon grows from 0.

    Example:

    >>> from soar_tf.datasets import defaults
    >>> defaults.recipe("digits")["epsilon"]
    0.15
    """
    return {**_DEFAULT_RECIPE, **_RECIPES.get(dataset, {})}
