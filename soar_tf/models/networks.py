"""Networks: plain Keras models from pixels in [0, 1] to logits, with the normalisation inside."""

import inspect

from keras import layers

from soar_tf import registry
from soar_tf.errors import unknown
from soar_tf.models.heads import check_gives_logits, softmax_head, to_logits
from soar_tf.models.network_parts import normalized, scaled, standardize, with_logits
from soar_tf.models.residual_networks import preact_resnet18, resnet18, wide_resnet
from soar_tf.models.scales import with_pixel_range
from soar_tf.validation import check_choice, check_integer

__all__ = [
    "available",
    "check_gives_logits",
    "cnn2",
    "cnn4",
    "get",
    "mlp",
    "preact_resnet18",
    "resnet18",
    "softmax_head",
    "standardize",
    "to_logits",
    "wide_resnet",
    "with_pixel_range",
]


def cnn4(
    input_shape=(32, 32, 3),
    num_classes=10,
    width=1.0,
    padding="valid",
    dense_units=512,
    normalization="fixed",
):
    """The paper's four-layer CNN (arXiv:2004.01832, appendix C).

    Four 3x3 convolutions with 32, 32, 64 and 64 channels, ReLU, 2x2 max-pooling after the second
    and the fourth. The paper does not print the head; the authors' four-layer networks have
    valid padding and a dense layer of 512 units (890,410 parameters on CIFAR-10).

    Args:
        input_shape: `(height, width, channels)` of the images, at least 16x16.
        num_classes: Number of classes, at least 2.
        width: Factor on every layer's number of channels.
        padding: `"valid"` or `"same"`.
        dense_units: Units of the dense layer before the logits (times `width`); 0 for none.
        normalization: What happens to the pixels first: `"fixed"` (4x - 2) or `"per_image"`
            (each image is standardised, see `standardize`, as in the authors' networks).

    Returns:
        A `keras.Model` giving logits `[B, num_classes]`.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.cnn4().count_params()
    890410
    """
    inputs, x = normalized(input_shape, 16 if padding == "valid" else 4, normalization)
    check_choice(padding, "padding", ("valid", "same"))
    for block, channels in enumerate((32, 64)):
        for _ in range(2):
            x = layers.Conv2D(scaled(channels, width), 3, padding=padding, activation="relu")(x)
        x = layers.MaxPooling2D(2, name=f"pool_{block + 1}")(x)
    x = layers.Flatten()(x)
    if units := check_integer(dense_units, "dense_units", minimum=0):
        x = layers.Dense(scaled(units, width), activation="relu")(x)
    return with_logits(inputs, x, num_classes, "cnn4")


def cnn2(input_shape=(8, 8, 1), num_classes=10, width=1.0):
    """A small CNN for small images such as the 8x8 digits: two convolutions and a dense layer.

    Args:
        input_shape: `(height, width, channels)` of the images, at least 4x4.
        num_classes: Number of classes, at least 2.
        width: Factor on every layer's number of channels.

    Returns:
        A `keras.Model` giving logits `[B, num_classes]`.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.cnn2(num_classes=3, width=0.5).output_shape
    (None, 3)
    """
    inputs, x = normalized(input_shape, 4)
    x = layers.Conv2D(scaled(32, width), 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(scaled(64, width), 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(scaled(128, width), activation="relu")(x)
    return with_logits(inputs, x, num_classes, "cnn2")


def mlp(input_shape=(8, 8, 1), num_classes=10, width=1.0, activation="relu"):
    """A multilayer perceptron with two hidden layers of 128 units.

    Args:
        input_shape: `(height, width, channels)` of the images.
        num_classes: Number of classes, at least 2.
        width: Factor on the number of units.
        activation: Any Keras activation's name.

    Returns:
        A `keras.Model` giving logits `[B, num_classes]`.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.mlp(input_shape=(4, 4, 3), activation="gelu").input_shape
    (None, 4, 4, 3)
    """
    inputs, x = normalized(input_shape, 1)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dense(scaled(128, width), activation=activation)(x)
    return with_logits(inputs, x, num_classes, "mlp")


ALL_OBJECTS = registry.NETWORKS


def get(name, *, input_shape, num_classes, **arguments):
    """Builds a registered network.

    Args:
        name: `"cnn4"`, `"cnn2"`, `"mlp"`, `"resnet18"`, `"preact_resnet18"`, `"wide_resnet"`, or
            the name of an installed plugin (entry point group `soar_tf.networks`): a function of
            `input_shape`, `num_classes` and further arguments that returns a `keras.Model` giving
            logits.
        input_shape: `(height, width, channels)` of the images.
        num_classes: Number of classes.
        **arguments: The network's further arguments, such as `width`; numbers may be strings.

    Returns:
        A `keras.Model` giving logits.

    Raises:
        InputError: For an unknown name or argument, or a value out of range.

    Example:

    >>> import soar_tf
    >>> network = soar_tf.networks.get("mlp", input_shape=(8, 8, 1), num_classes=5, width="0.5")
    >>> network.output_shape
    (None, 5)
    """
    builder = ALL_OBJECTS.find(name)
    allowed = [p for p in inspect.signature(builder).parameters if p not in _SHAPE_ARGUMENTS]
    for argument in arguments:
        if argument not in allowed:
            raise unknown(f"argument of network {name!r}:", argument, allowed)
    return builder(input_shape=input_shape, num_classes=num_classes, **arguments)


_SHAPE_ARGUMENTS = ("input_shape", "num_classes")


def available():
    """All networks' builders by name, plugins (entry point group `soar_tf.networks`) included.

    Returns:
        `(builders, problems)`: names to functions, and for plugins that cannot be used a message.

    Example:

    >>> import soar_tf
    >>> "cnn4" in soar_tf.networks.available()[0]
    True
    """
    return ALL_OBJECTS.available()
