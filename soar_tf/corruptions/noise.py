"""Independent noise on each pixel and channel."""

import functools
import math

import numpy as np
import tensorflow as tf

from soar_tf.ops import random

_GAUSSIAN = (0.04, 0.06, 0.08, 0.09, 0.10)  # standard deviations
_SHOT = (500, 250, 100, 75, 50)  # photons at full brightness
_IMPULSE = (0.01, 0.02, 0.03, 0.05, 0.07)  # shares of the values
_SPECKLE = (0.06, 0.10, 0.12, 0.16, 0.20)  # standard deviations, relative to the pixel


def gaussian_noise(x, severity, keys):
    """Adds normal noise of standard deviation .04 to .1.

    Args:
        x: float32 tensor `[B, H, W, C]`, pixels in [0, 1].
        severity: 1 to 5.
        keys: uint32 tensor `[B, 2]`, the examples' noise keys.

    Returns:
        float32 tensor `[B, H, W, C]`, not clipped.
    """
    return x + _GAUSSIAN[severity - 1] * random.normal(keys, x.shape[1:])


def speckle_noise(x, severity, keys):
    """Multiplies each value by 1 plus normal noise.

    For the arguments see `gaussian_noise`.
    """
    return x + x * _SPECKLE[severity - 1] * random.normal(keys, x.shape[1:])


def impulse_noise(x, severity, keys):
    """Sets 1 to 7 % of the values to 0 or 1, equally often.

    For the arguments see `gaussian_noise`.
    """
    share = _IMPULSE[severity - 1]
    draw = random.uniform(keys, x.shape[1:])
    return tf.where(draw < share / 2, 0.0, tf.where(draw < share, 1.0, x))


def shot_noise(x, severity, keys):
    """Adds photon (Poisson) noise with a mean count of 500 to 50 at full brightness.

    Pixels are first rounded to 8 bits, so 256 distributions suffice. For the arguments see
    `gaussian_noise`.
    """
    photons = _SHOT[severity - 1]
    cumulative, size = _cumulative_poisson(photons)
    level = tf.cast(tf.round(255.0 * x), tf.int64)
    # The rows of the table are between consecutive integers, so one search covers all levels.
    draw = tf.cast(random.uniform(keys, x.shape[1:]), tf.float64) + tf.cast(level, tf.float64)
    index = tf.searchsorted(tf.constant(cumulative), tf.reshape(draw, [-1]), out_type=tf.int64)
    count = tf.minimum(tf.reshape(index, tf.shape(level)) - level * size, size - 1)
    return tf.cast(count, tf.float32) / photons


@functools.cache
def _cumulative_poisson(photons):
    """For each of 256 levels, the level plus P(count <= k) for k = 0, 1, ...; float64, flat."""
    size = int(photons + 10 * math.sqrt(photons) + 10)
    counts = np.arange(size)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    mean = photons * np.arange(1, 256)[:, None] / 255
    probability = np.exp(counts * np.log(mean) - mean - log_factorial)
    rows = np.concatenate([np.ones((1, size)), np.minimum(np.cumsum(probability, axis=1), 1.0)])
    return (rows + np.arange(256)[:, None]).ravel(), size
