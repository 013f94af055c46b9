"""Networks that hide their gradients, each over a bare network that is attacked for the truth.

A mask is a function from the bare network, a `keras.Model`, to a logits function with (nearly) the
same predictions. What the bare network withstands is the truth; whatever a mask withstands beyond
it is flattery.
"""

import keras
import numpy as np
import tensorflow as tf


def scaled_logits(f):
    return lambda x: 1e4 * f(x)


def tiny_logits(f):
    return lambda x: 1e-12 * f(x)


def quantised(levels):
    def mask(f):
        return lambda x: f(tf.round(x * (levels - 1)) / (levels - 1))

    return mask


def quantised_by_cast(f):
    return lambda x: f(tf.cast(tf.cast(x * 255 + 0.5, tf.uint8), tf.float32) / 255)


def quantised_in_numpy(f):
    def mask(x):
        rounded = tf.numpy_function(
            lambda a: (np.round(a * 31) / 31).astype("float32"), [x], tf.float32
        )
        return f(tf.ensure_shape(rounded, x.shape))

    return mask


def floored(f):
    return lambda x: f(tf.floor(x * 31.999) / 31)


def stopped(f):
    return lambda x: tf.stop_gradient(f(x))


def stopped_input(f):
    return lambda x: f(tf.stop_gradient(x))


def _with_gradient(f, change):
    @tf.custom_gradient
    def identity(x):
        return tf.identity(x), change

    return lambda x: f(identity(x))


def zero_gradient(f):
    return _with_gradient(f, tf.zeros_like)


def flipped_gradient(f):
    return _with_gradient(f, lambda slope: -slope)


def random_gradient(f):
    return _with_gradient(f, lambda slope: tf.random.normal(tf.shape(slope)))


def vanishing_gradient(f):
    return _with_gradient(f, lambda slope: 1e-30 * slope)


def constant_gradient(f):
    return _with_gradient(f, tf.ones_like)


def other_gradient(f):
    """The gradient of another, untrained linear network."""
    weights = None

    def mask(x):
        nonlocal weights
        logits = f(x)
        if weights is None:
            size = int(np.prod(x.shape[1:]))
            weights = (
                np.random.default_rng(0).normal(size=(size, logits.shape[1])).astype("float32")
            )

        @tf.custom_gradient
        def other(x, z):
            def gradient(slope):
                return tf.reshape(tf.matmul(slope, weights, transpose_b=True), tf.shape(x)), None

            return tf.identity(z), gradient

        return other(x, tf.stop_gradient(logits))

    return mask


def rounded_logits(f):
    return lambda x: tf.round(f(x))


def coarse_logits(f):
    return lambda x: 4 * tf.round(f(x) / 4)


def clipped_logits(f):
    return lambda x: tf.clip_by_value(f(x), -1.0, 1.0) + 1e-6 * tf.stop_gradient(f(x))


def saturated_logits(f):
    return lambda x: tf.tanh(100 * f(x)) + 1e-6 * tf.stop_gradient(f(x))


def one_hot_margins(f):
    return lambda x: 10 * tf.one_hot(tf.argmax(f(x), axis=1), f(x).shape[1]) - 5.0


def distilled(f):
    return lambda x: 100 * f(x)


def thermometer(f):
    levels = tf.constant(np.linspace(0, 1, 32, endpoint=False), tf.float32)
    return lambda x: f(tf.reduce_mean(tf.cast(x[..., None] > levels, tf.float32), axis=-1))


def jpeg_like(f):
    """A cosine transform over the whole image, rounded, and back."""

    def mask(x):
        side = x.shape[1]
        n, k = np.arange(side), np.arange(side)[:, None]
        basis = np.cos(np.pi * (2 * n + 1) * k / (2 * side))
        basis *= np.where(k == 0, np.sqrt(1 / side), np.sqrt(2 / side))
        basis = tf.constant(basis, tf.float32)
        there = tf.einsum("kh,lw,bhwc->bklc", basis, basis, x)
        coarse = tf.round(there * 40) / 40
        return f(tf.einsum("kh,lw,bklc->bhwc", basis, basis, coarse))

    return mask


def noisy(f):
    return lambda x: f(x + tf.random.normal(tf.shape(x), stddev=0.03))


def dropped(f):
    return lambda x: f(x * tf.cast(tf.random.uniform(tf.shape(x)) > 0.1, tf.float32))


def shifted(f):
    def mask(x):
        pad = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        i, j = tf.random.uniform([], 0, 3, tf.int32), tf.random.uniform([], 0, 3, tf.int32)
        return f(tf.ensure_shape(pad[:, i : i + x.shape[1], j : j + x.shape[2]], x.shape))

    return mask


def resized(f):
    """A random smaller size and back, as in defences by random resizing."""

    def mask(x):
        side = tf.random.uniform([], x.shape[1] - 2, x.shape[1] + 1, tf.int32)
        small = tf.image.resize(x, [side, side])
        return f(tf.ensure_shape(tf.image.resize(small, x.shape[1:3]), x.shape))

    return mask


def dropout(f):
    """Dropout before the last layer, also in inference."""
    features, head = keras.Model(f.inputs, f.layers[-1].input), f.layers[-1]
    return lambda x: head(tf.nn.dropout(features(x, training=False), 0.2))


def winning_pixels(f):
    """k winners take all, on the pixels: the lower half of them become 0."""

    def mask(x):
        flat = tf.reshape(x, [tf.shape(x)[0], int(np.prod(x.shape[1:]))])
        least = tf.math.top_k(flat, flat.shape[1] // 2).values[:, -1:]
        kept = tf.where(flat >= least, flat, tf.zeros_like(flat))
        return f(tf.reshape(kept, tf.shape(x)))

    return mask


def winning_units(f):
    """k winners take all, on the units before the last layer, by a threshold without a slope."""
    features, head = keras.Model(f.inputs, f.layers[-1].input), f.layers[-1]

    def mask(x):
        units = features(x, training=False)
        least = tf.math.top_k(units, units.shape[1] // 2).values[:, -1:]
        return head(tf.stop_gradient(units * tf.cast(units >= least, tf.float32)))

    return mask


def rounded_probabilities(f):
    return lambda x: tf.math.log(tf.round(tf.nn.softmax(f(x)) * 10) / 10 + 1e-3)


def sawtooth(f):
    """A carrier on the top logit that hides the slope: steep, and small in height."""

    def mask(x):
        logits = f(x)
        carrier = tf.math.floormod(1e4 * tf.reduce_sum(x, axis=[1, 2, 3]), 1.0)
        top = tf.one_hot(tf.argmax(logits, axis=1), logits.shape[1])
        return logits + 0.3 * carrier[:, None] * top

    return mask


MASKS = {
    "logits times 10,000": scaled_logits,
    "tiny logits": tiny_logits,
    "distilled at temperature 100": distilled,
    "quantised, 256 levels": quantised(256),
    "quantised, 16 levels": quantised(16),
    "cast to bytes": quantised_by_cast,
    "quantised in NumPy": quantised_in_numpy,
    "floored": floored,
    "thermometer": thermometer,
    "JPEG-like": jpeg_like,
    "stopped outputs": stopped,
    "stopped inputs": stopped_input,
    "zero gradient": zero_gradient,
    "flipped gradient": flipped_gradient,
    "random gradient": random_gradient,
    "vanishing gradient": vanishing_gradient,
    "constant gradient": constant_gradient,
    "another network's gradient": other_gradient,
    "rounded logits": rounded_logits,
    "coarse logits": coarse_logits,
    "clipped logits": clipped_logits,
    "saturated logits": saturated_logits,
    "rounded probabilities": rounded_probabilities,
    "one-hot outputs": one_hot_margins,
    "noise": noisy,
    "dropped pixels": dropped,
    "shifted": shifted,
    "resized": resized,
    "dropout": dropout,
    "k winning pixels": winning_pixels,
    "k winning units": winning_units,
    "sawtooth": sawtooth,
}

SEARCHED_ONLY = ("sawtooth",)
"""Masks whose true slopes mislead: a search gets past them, and no straight-through pass does."""

BLURRED = ("noise", "dropped pixels", "shifted", "resized", "dropout")
"""Masks that draw anew in each pass: other networks than the bare one, which may withstand more."""
