"""What a data set is trained with unless told otherwise; imports nothing heavy."""

# What a data set is trained with unless told otherwise. Epsilon is its usual l-infinity radius;
# on the 8x8 digits, 0.15 is where a standard network fails and a robust one still can hold.
# During the first `epsilon_warmup` of the epochs, methods that attack a network without training
# let epsilon grow from 0: at once at full strength, small networks learn to ignore the image
# (10 % accuracy on CIFAR-10 from the first epoch on).
_RECIPES = {
    "digits": {
        "network": "cnn2", "epsilon": 0.15, "epochs": 60, "pretrain_epochs": 30, "batch_size": 64,
        "epsilon_warmup": 0,
    },
    "mnist": {"network": "cnn4", "epsilon": 0.3},
    "fashion_mnist": {"network": "cnn4", "epsilon": 0.1},
}  # fmt: skip
_DEFAULT_RECIPE = {
    "network": "cnn4", "epsilon": 8 / 255, "epochs": 15, "pretrain_epochs": 24, "batch_size": 128,
    "epsilon_warmup": 0.25,
}  # fmt: skip


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
