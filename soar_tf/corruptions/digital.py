"""Artefacts of image storage: low resolution, strong compression."""

import tensorflow as tf

from soar_tf.corruptions import filters

_PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)  # side lengths relative to the original
_JPEG = (80, 65, 58, 50, 40)  # qualities


def pixelate(x, severity, keys):
    """Shrinks the sides of the image to 95 to 65 % and enlarges it again, with box filters.

    Args:
        x: float32 tensor `[B, H, W, C]`, pixels in [0, 1].
        severity: 1 to 5.
        keys: Unused: there is no noise.

    Returns:
        float32 tensor `[B, H, W, C]`.
    """
    share = _PIXELATE[severity - 1]
    sides = [(side, max(int(side * share), 1)) for side in x.shape[1:3]]
    shrunk = filters.along_sides(x, *(filters.box_matrix(side, small) for side, small in sides))
    return filters.along_sides(shrunk, *(filters.box_matrix(small, side) for side, small in sides))


def jpeg(x, severity, keys):
    """Compresses the image as a JPEG of quality 80 to 40.

    For the arguments see `pixelate`.
    """

    def compress(image):
        data = tf.io.encode_jpeg(image, quality=_JPEG[severity - 1])
        return tf.io.decode_jpeg(data, x.shape[-1], dct_method="INTEGER_ACCURATE")

    pixels = tf.cast(tf.round(255.0 * x), tf.uint8)
    signature = tf.TensorSpec(x.shape[1:], tf.uint8)
    decoded = tf.map_fn(compress, pixels, fn_output_signature=signature)
    return tf.cast(decoded, tf.float32) / 255.0
