"""Whether a network expects pixels on another scale than [0, 1], and a layer that gives it them."""

import keras
import numpy as np
import tensorflow as tf

from soar_tf.models.keras_internals import layers_of

# Other scales that networks are trained on, as factors of pixels in [0, 1].
_FACTORS = (255.0, 1 / 255)
# A better scale must gain so much accuracy before it is worth a sentence.
_GAIN, _RIGHT = 0.3, 0.6


def input_findings(network):
    """What a Keras model says about its input by itself."""
    if not isinstance(network, keras.Model) or not getattr(network, "inputs", None):
        return
    if len(network.inputs) != 1:
        return
    size = network.inputs[0].shape[0]
    if size is not None:
        yield (
            "fixed_batch",
            True,
            f"`network` takes batches of exactly {size} images; build it with a batch size "
            "of None.",
        )
    dtype = keras.backend.standardize_dtype(network.inputs[0].dtype)
    if not dtype.startswith(("float", "bfloat")):
        yield "integer_input", True, integer_input("`network`", dtype)


def integer_input(name, dtype):
    """The sentence about a network whose input is integers."""
    return (
        f"{name} takes {dtype} pixels, and pixels in [0, 1] would all become 0 or 1; rebuild it "
        "with a float input, or pass --pixel-range 255 (soar_tf.networks.with_pixel_range)."
    )


def findings(network, bounds):
    """What a Keras model's first layers say about the pixels that it expects, as a tuple."""
    if bounds[1] == 1.0 and (layer := _rescaling(network)) is not None:
        yield (
            "scale",
            False,
            f"The layer {layer.name!r} scales pixels as if they were in [0, 255], and these are in "
            "[0, 1]; pass --pixel-range 255 (soar_tf.networks.with_pixel_range), or take it out.",
        )


def accuracy_findings(logits_fn, x, y, z, bounds):
    """Whether the network is right far more often on another scale of pixels.

    Args:
        logits_fn: Callable `[B, ...] -> [B, C]`.
        x: float32 tensor `[B, ...]`.
        y: Labels of any form; only integer ones `[B]` are judged by.
        z: float `[B, C]`, the outputs for `x`.
        bounds: `(low, high)` of the pixels.
    """
    labels = np.asarray(y)
    if bounds[1] != 1.0 or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return
    here = float((z.argmax(axis=1) == labels).mean())
    for factor in _FACTORS:
        there = logits_fn(x * factor).numpy().argmax(axis=1)
        share = float((there == labels).mean())
        if share > _RIGHT and share - here > _GAIN and len(np.unique(there)) > 2:
            yield _better(factor, here, share, len(labels))
            return


def _better(factor, here, share, count):
    if factor > 1:
        remedy = "it was trained on pixels in [0, 255]; pass --pixel-range 255"
        remedy += " (soar_tf.networks.with_pixel_range)"
    else:
        remedy = "it was trained on pixels divided by 255 twice; put a Rescaling(1/255) before it"
    return (
        "scale",
        True,
        f"`network` is right on {100 * here:.0f} % of {count} images, and on {100 * share:.0f} % "
        f"with their pixels times {factor:.4g}: {remedy}.",
    )


def _rescaling(network):
    """The first layer, before any with weights to train, that expects pixels in [0, 255]."""
    if not isinstance(network, keras.Model):
        return None
    for layer in layers_of(network, include_self=False):
        if isinstance(layer, keras.Model):
            continue
        if layer.trainable_weights:
            return None
        if isinstance(layer, keras.layers.Rescaling):
            scale = float(np.max(np.abs(np.asarray(layer.scale))))
            # `with_pixel_range` and its like multiply; what comes after them is right.
            return layer if scale < 0.02 else None
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            mean = float(np.max(np.abs(keras.ops.convert_to_numpy(layer.mean))))
            return layer if mean > 2.0 else None
    return None


def with_pixel_range(network, largest):
    """A network that takes pixels in [0, 1], from one that takes them in [0, `largest`].

    One that takes integers gets the pixels rounded; they have no gradient then.

    Args:
        network: A `keras.Model`.
        largest: The pixel value that stands for white, such as 255.

    Returns:
        A `keras.Model` that shares the network's layers.

    Example:

    >>> import keras, numpy as np, soar_tf
    >>> network = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    >>> wrapped = soar_tf.networks.with_pixel_range(network, 255)
    >>> wrapped(np.full((1, 2, 2, 1), 0.2, "float32")).numpy().round(3).tolist()
    [[51.0, 51.0, 51.0, 51.0]]
    """
    inputs = keras.Input(network.input_shape[1:])
    x = keras.layers.Rescaling(float(largest))(inputs)
    dtype = keras.backend.standardize_dtype(network.inputs[0].dtype)
    if not dtype.startswith(("float", "bfloat")):
        x = keras.ops.cast(keras.ops.round(x), dtype)
    return keras.Model(inputs, network(x), name=network.name)


def to_range(x, largest, dtype):
    """Pixels in [0, 1] as a function takes them, white being `largest` (`None`: 1), as `dtype`."""
    x = x if largest is None else x * float(largest)
    return tf.cast(x if dtype.is_floating else tf.round(x), dtype)
