"""Networks: plain Keras models from pixels in [0, 1] to logits, with the normalisation inside."""

import inspect
import math

import keras
from keras import layers, ops

from soar_tf import registry
from soar_tf.errors import InputError, unknown
from soar_tf.models.heads import check_gives_logits, softmax_head, to_logits
from soar_tf.validation import check_choice, check_integer, check_number

__all__ = [
    "available",
    "check_gives_logits",
    "cnn2",
    "cnn4",
    "get",
    "mlp",
    "resnet18",
    "softmax_head",
    "standardize",
    "to_logits",
]
NORMALIZATIONS = ("fixed", "per_image")


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
    inputs, x = _normalized(input_shape, 16 if padding == "valid" else 4, normalization)
    check_choice(padding, "padding", ("valid", "same"))
    for block, channels in enumerate((32, 64)):
        for _ in range(2):
            x = layers.Conv2D(_scaled(channels, width), 3, padding=padding, activation="relu")(x)
        x = layers.MaxPooling2D(2, name=f"pool_{block + 1}")(x)
    x = layers.Flatten()(x)
    if units := check_integer(dense_units, "dense_units", minimum=0):
        x = layers.Dense(_scaled(units, width), activation="relu")(x)
    return _with_logits(inputs, x, num_classes, "cnn4")


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
    inputs, x = _normalized(input_shape, 4)
    x = layers.Conv2D(_scaled(32, width), 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(_scaled(64, width), 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(_scaled(128, width), activation="relu")(x)
    return _with_logits(inputs, x, num_classes, "cnn2")


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
    inputs, x = _normalized(input_shape, 1)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dense(_scaled(128, width), activation=activation)(x)
    return _with_logits(inputs, x, num_classes, "mlp")


def resnet18(input_shape=(32, 32, 3), num_classes=10, width=1.0, normalization="fixed"):
    """ResNet-18 for small images (He et al. 2016, arXiv:1512.03385): 3x3 stem, no first pooling.

    Args:
        input_shape: `(height, width, channels)` of the images, at least 8x8.
        num_classes: Number of classes, at least 2.
        width: Factor on every layer's number of channels; 1 means 64, 128, 256, 512.
        normalization: `"fixed"` (4x - 2) or `"per_image"`, see `standardize`.

    Returns:
        A `keras.Model` giving logits `[B, num_classes]`.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.resnet18(width=0.1).output_shape
    (None, 10)
    """
    inputs, x = _normalized(input_shape, 8, normalization)
    x = _convolution_and_norm(x, _scaled(64, width), 3, 1)
    x = layers.ReLU()(x)
    for stage, channels in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _residual_block(x, _scaled(channels, width), stride)
    x = layers.GlobalAveragePooling2D()(x)
    return _with_logits(inputs, x, num_classes, "resnet18")


ALL_OBJECTS = {"cnn2": cnn2, "cnn4": cnn4, "mlp": mlp, "resnet18": resnet18}


def get(name, *, input_shape, num_classes, **arguments):
    """Builds a registered network.

    Args:
        name: `"cnn4"`, `"cnn2"`, `"mlp"`, `"resnet18"`, or the name of an installed plugin
            (entry point group `soar_tf.networks`): a function of `input_shape`, `num_classes` and
            further arguments that returns a `keras.Model` giving logits.
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
    builder = registry.find("networks", name, ALL_OBJECTS, _is_builder, "network")
    allowed = [p for p in inspect.signature(builder).parameters if p not in _SHAPE_ARGUMENTS]
    for argument in arguments:
        if argument not in allowed:
            raise unknown(f"argument of network {name!r}:", argument, allowed)
    return builder(input_shape=input_shape, num_classes=num_classes, **arguments)


_SHAPE_ARGUMENTS = ("input_shape", "num_classes")


def available():
    """All networks' builders by name, plugins (entry point group `soar_tf.networks`) included.

    Returns:
        `(builders, problems)`: names to functions, and for plugins that cannot be used a sentence.

    Example:

    >>> import soar_tf
    >>> "cnn4" in soar_tf.networks.available()[0]
    True
    """
    return registry.available("networks", ALL_OBJECTS, _is_builder)


def _is_builder(found):
    return callable(found) and set(_SHAPE_ARGUMENTS) <= set(inspect.signature(found).parameters)


def standardize(images):
    r"""Each image with mean 0 and standard deviation 1 over all its values.

    $$\frac{x - \bar x}{\max(s, 1/\sqrt d)}, \qquad
    s^2 = \frac{1}{d - 1} \sum_i (x_i - \bar x)^2$$

    over the $d = HWC$ values of an image, as `tf.image.per_image_standardization` does it but for
    the $d - 1$. The lower limit keeps an image of one colour from becoming noise. Gradients pass
    through mean and deviation, the second ones too: there is no `tf.nn.moments` in it, whose
    second derivative is wrong.

    Args:
        images: `[B, H, W, C]`: a tensor, or a `keras.Input` of a network of your own.

    Returns:
        The same shape.

    Example:

    >>> import numpy as np
    >>> from soar_tf import networks
    >>> x = networks.standardize(np.arange(12.0).reshape(1, 2, 2, 3))
    >>> round(float(np.std(x, ddof=1)), 6)
    1.0
    """
    d = math.prod(images.shape[1:])
    centered = images - ops.mean(images, axis=(1, 2, 3), keepdims=True)
    variance = ops.sum(centered * centered, axis=(1, 2, 3), keepdims=True) / max(1, d - 1)
    # The maximum before the root: the gradient of a root at 0 is infinite.
    return centered / ops.sqrt(ops.maximum(variance, 1 / d))


def _normalized(input_shape, minimum, normalization="fixed"):
    shape = tuple(input_shape)
    if len(shape) != 3 or min(shape[:2]) < minimum:
        raise InputError(
            f"`input_shape` must be (height, width, channels) of at least {minimum}x{minimum} "
            f"pixels for this network. Received: {shape}."
        )
    check_choice(normalization, "normalization", NORMALIZATIONS)
    inputs = keras.Input(shape, name="pixels")
    if normalization == "per_image":
        return inputs, standardize(inputs)
    # (x - 0.5) / 0.25: natural images come out with about zero mean and unit variance.
    return inputs, layers.Rescaling(4.0, offset=-2.0, name="normalize")(inputs)


def _with_logits(inputs, features, num_classes, name):
    classes = check_integer(num_classes, "num_classes", minimum=2)
    # float32 under the mixed policies: a half-precision softmax loses small probabilities.
    logits = layers.Dense(classes, dtype="float32", name="logits")(features)
    return keras.Model(inputs, logits, name=name)


def _scaled(channels, width):
    return max(1, round(channels * check_number(width, "width", minimum=0.0, exclusive=True)))


def _convolution_and_norm(x, channels, kernel, stride):
    x = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _residual_block(x, channels, stride):
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = _convolution_and_norm(x, channels, 1, stride)
    x = layers.ReLU()(_convolution_and_norm(x, channels, 3, stride))
    x = _convolution_and_norm(x, channels, 3, 1)
    return layers.ReLU()(layers.Add()([x, shortcut]))
