"""What the package's networks are made of: normalisation at the input, logits at the output."""

import math

import keras
from keras import layers, ops

from soar_tf.errors import InputError
from soar_tf.validation import check_choice, check_integer, check_number

NORMALIZATIONS = ("fixed", "per_image")


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


def normalized(input_shape, minimum, normalization="fixed"):
    shape = tuple(input_shape)
    if len(shape) != 3 or min(shape[:2]) < minimum:
        raise InputError(
            f"`input_shape` must be (height, width, channels) of at least {minimum}x{minimum} "
            f"pixels for this network. Received: {shape}."
        )
    inputs = keras.Input(shape, name="pixels")
    if isinstance(normalization, (tuple, list)):
        mean, std = normalization
        scale = [1 / value for value in std]
        offset = [-m / s for m, s in zip(mean, std, strict=True)]
        return inputs, layers.Rescaling(scale, offset, name="normalize")(inputs)
    check_choice(normalization, "normalization", NORMALIZATIONS)
    if normalization == "per_image":
        return inputs, standardize(inputs)
    # (x - 0.5) / 0.25: natural images come out with about zero mean and unit variance.
    return inputs, layers.Rescaling(4.0, offset=-2.0, name="normalize")(inputs)


def with_logits(inputs, features, num_classes, name):
    classes = check_integer(num_classes, "num_classes", minimum=2)
    # float32 under the mixed policies: a half-precision softmax loses small probabilities.
    logits = layers.Dense(classes, dtype="float32", name="logits")(features)
    return keras.Model(inputs, logits, name=name)


_WIDEST = 64


def scaled(channels, width):
    width = check_number(width, "width", minimum=0.0, exclusive=True)
    if width > _WIDEST:
        raise InputError(f"`width` must be at most {_WIDEST}. Received: {width:g}.")
    return max(1, round(channels * width))
