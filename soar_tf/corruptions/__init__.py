"""Common corruptions: noise, blur, colour and digital artefacts at five severities.

They follow the recipes and constants of Hendrycks and Dietterich for CIFAR images
(arXiv:1903.12261), as far as these can be computed at run time without additional files: no
weather, no motion blur, no glass blur. A corruption is a pure function of an image, a severity and
a noise key.

A new corruption is one function in the file of its family and one line in
`soar_tf/registry/tables.py`.
"""

import tensorflow as tf

from soar_tf import registry
from soar_tf.errors import InputError
from soar_tf.ops import random
from soar_tf.validation import check_integer, check_seed

SEVERITIES = (1, 2, 3, 4, 5)

ALL_OBJECTS = registry.CORRUPTIONS
# Corruptions that do not change a grey image.
COLOUR_ONLY = ("saturate",)


def get(name):
    """A corruption by its registered name.

    Args:
        name: The name, also of a plugin (entry point group `soar_tf.corruptions`).

    Returns:
        The function `(x [B, H, W, C], severity, keys [B, 2]) -> [B, H, W, C]`.

    Raises:
        InputError: For an unknown name.

    Example:

    >>> import soar_tf
    >>> soar_tf.corruptions.get("contrast").__name__
    'contrast'
    """
    return ALL_OBJECTS.find(name)


def available():
    """All corruptions by name, plugins included.

    Returns:
        `(functions, problems)`: dictionaries from names to functions, and from the names of plugins
        that cannot be used to messages.

    Example:

    >>> import soar_tf
    >>> "jpeg" in soar_tf.corruptions.available()[0]
    True
    """
    return ALL_OBJECTS.available()


def names_for(shape):
    """The built-in corruptions that change images of this shape.

    Args:
        shape: `(H, W, C)`.

    Returns:
        Tuple of names.

    Raises:
        InputError: If the shape is not that of images with 1 or 3 channels.

    Example:

    >>> import soar_tf
    >>> "saturate" in soar_tf.corruptions.names_for((8, 8, 1))
    False
    """
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise InputError(
            f"`corruptions` need images of shape [H, W, 1] or [H, W, 3]. Received: {list(shape)}."
        )
    return tuple(name for name in ALL_OBJECTS if shape[-1] == 3 or name not in COLOUR_ONLY)


def corrupt(name, x, severity, *, seed=0, positions=None):
    """Corrupts images and rounds them to 8 bits, as stored images are.

    Args:
        name: The corruption's name.
        x: float `[B, H, W, C]`, pixels in [0, 1], 1 or 3 channels.
        severity: 1 to 5.
        seed: Seed of the noise.
        positions: int `[B]`, the images' positions in their data set, which determine their noise;
            `None` for 0 to B - 1.

    Returns:
        float32 tensor `[B, H, W, C]`, pixels in [0, 1].

    Raises:
        InputError: For an unknown corruption or a severity out of range.

    Example:

    >>> import numpy as np, soar_tf
    >>> x = np.full((1, 2, 2, 1), 0.4, "float32")
    >>> x[0, 0, 0, 0] = 0.8  # the mean is .5; severity 2 halves the contrast about it
    >>> soar_tf.corruptions.corrupt("contrast", x, 2)[0, :, :, 0].numpy().round(2)
    array([[0.65, 0.45],
           [0.45, 0.45]], dtype=float32)
    """
    corruption = get(name)
    if check_integer(severity, "severity") not in SEVERITIES:
        raise InputError(f"`severity` must be 1 to 5. Received: {severity!r}.")
    severity = int(severity)
    x = tf.cast(x, tf.float32)
    names_for(tuple(x.shape[1:]))
    positions = tf.range(tf.shape(x)[0]) if positions is None else tf.convert_to_tensor(positions)
    keys = random.example_keys(check_seed(seed), positions, step=severity, purpose=name)
    corrupted = tf.clip_by_value(corruption(x, severity, keys), 0.0, 1.0)
    # Means of 8-bit pixels can be exactly between two levels, where the last bit, which may depend
    # on the batch, would decide: an extra thousandth of a level rounds them all up.
    return tf.floor(corrupted * 255.0 + 0.501) / 255.0


__all__ = ["ALL_OBJECTS", "SEVERITIES", "available", "corrupt", "get", "names_for"]
