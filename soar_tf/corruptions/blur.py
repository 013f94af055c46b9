"""Blur: each channel is convolved with a kernel."""

import tensorflow as tf

from soar_tf.corruptions import filters

_GAUSSIAN = (0.4, 0.6, 0.7, 0.8, 1.0)  # standard deviations in pixels
# Radius of the disk, and standard deviation of its smoothing, in pixels.
_DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))


def gaussian_blur(x, severity, keys):
    """Convolves with a Gaussian of standard deviation .4 to 1 pixel.

    Args:
        x: float32 tensor `[B, H, W, C]`, pixels in [0, 1].
        severity: 1 to 5.
        keys: Unused: there is no noise.

    Returns:
        float32 tensor `[B, H, W, C]`.
    """
    matrices = [
        filters.gaussian_matrix(side, _GAUSSIAN[severity - 1], truncate=4, border="nearest")
        for side in x.shape[1:3]
    ]
    return filters.along_sides(x, *matrices)


def defocus_blur(x, severity, keys):
    """Convolves with a smoothed disk of radius .3 to 1.5 pixels.

    For the arguments see `gaussian_blur`.
    """
    kernel = filters.disk_kernel(*_DEFOCUS[severity - 1])
    radius = kernel.shape[0] // 2
    padded = tf.pad(x, [[0, 0], [radius, radius], [radius, radius], [0, 0]], "REFLECT")
    depthwise = tf.repeat(tf.constant(kernel, tf.float32)[:, :, None, None], x.shape[-1], axis=2)
    return tf.nn.depthwise_conv2d(padded, depthwise, [1, 1, 1, 1], "VALID")
