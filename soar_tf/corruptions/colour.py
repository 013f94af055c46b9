"""Changes of brightness, contrast and saturation."""

import tensorflow as tf

_BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)  # added to the V of HSV
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # factors
# Factor and offset of the saturation.
_SATURATE = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))


def brightness(x, severity, keys):
    """Adds .05 to .3 to the value channel (V of HSV) of each pixel.

    Args:
        x: float32 tensor `[B, H, W, C]`, pixels in [0, 1].
        severity: 1 to 5.
        keys: Unused: there is no noise.

    Returns:
        float32 tensor `[B, H, W, C]`.
    """
    offset = _BRIGHTNESS[severity - 1]
    if x.shape[-1] == 1:  # a grey pixel equals its value
        return tf.minimum(x + offset, 1.0)
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(x), axis=-1)
    return tf.image.hsv_to_rgb(tf.stack([hue, saturation, tf.minimum(value + offset, 1.0)], -1))


def contrast(x, severity, keys):
    """Moves each pixel towards its channel's mean over the image.

    For the arguments see `brightness`.
    """
    mean = tf.reduce_mean(x, axis=(1, 2), keepdims=True)
    return mean + _CONTRAST[severity - 1] * (x - mean)


def saturate(x, severity, keys):
    """Changes the saturation of each pixel: pale at severities 1 and 2, then oversaturated.

    Args:
        x: float32 tensor `[B, H, W, 3]`, pixels in [0, 1].
        severity: 1 to 5.
        keys: Unused: there is no noise.

    Returns:
        float32 tensor `[B, H, W, 3]`.
    """
    factor, offset = _SATURATE[severity - 1]
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(x), axis=-1)
    saturation = tf.clip_by_value(factor * saturation + offset, 0.0, 1.0)
    return tf.image.hsv_to_rgb(tf.stack([hue, saturation, value], -1))
