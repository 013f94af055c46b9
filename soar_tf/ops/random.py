r"""Counter-based noise: a pure function of (seed, step, purpose, example, pixel).

TensorFlow's stateless generators draw one stream for a whole batch, so the noise of an example
would depend on its batch and replica. Here each example has its own key, and noise is the hash of
(key, counter). Hence there is no generator state to save, a resumed run draws what the
uninterrupted one would have drawn, two replicas draw what one device draws for the same global
batch, and an attack's result does not depend on how examples were batched.

The hash is `pcg4d` of Jarzynski and Olano, "Hash Functions for GPU Rendering" (JCGT 9(3), 2020):
four 32-bit words in, four out, a few integer operations per word on any device.
"""

import zlib

import tensorflow as tf

_MULTIPLIER, _INCREMENT = 1664525, 1013904223


def _u32(value):
    return tf.constant(value, tf.uint32)


def _pcg4d(a, b, c, d):
    """Hashes four broadcastable uint32 tensors into four."""
    a, b, c, d = (v * _u32(_MULTIPLIER) + _u32(_INCREMENT) for v in (a, b, c, d))
    for last in (False, True):
        a += b * d
        b += c * a
        c += a * b
        d += b * c
        if not last:
            a, b, c, d = (
                tf.bitwise.bitwise_xor(v, tf.bitwise.right_shift(v, _u32(16))) for v in (a, b, c, d)
            )
    return a, b, c, d


def _to_uint32(value):
    """Turns a purpose (string), a Python int or an integer tensor into a uint32 tensor."""
    if isinstance(value, str):
        return _u32(zlib.crc32(value.encode()))
    if isinstance(value, int):
        return _u32(value & 0xFFFFFFFF)
    value = tf.convert_to_tensor(value)
    return value if value.dtype == tf.uint32 else tf.cast(tf.cast(value, tf.int64), tf.uint32)


def example_keys(seed, indices, *, step=0, purpose=""):
    """Returns one noise key per example.

    Args:
        seed: The run's seed: a Python int (64 bits are used) or an integer scalar tensor.
        indices: int tensor `[B]`, the examples' positions in the global batch or in the data set;
            they must not depend on how the examples are batched.
        step: The optimizer step: Python int or integer scalar tensor.
        purpose: What the noise is for; different purposes give independent noise.

    Returns:
        uint32 tensor `[B, 2]`.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import random
    >>> keys = random.example_keys(7, tf.range(3), step=5, purpose="start")
    >>> keys.shape, random.uniform(keys, (2,)).shape
    (TensorShape([3, 2]), TensorShape([3, 2]))
    """
    high = _u32((seed >> 32) & 0xFFFFFFFF) if isinstance(seed, int) else _u32(0)
    a, b, _, _ = _pcg4d(_to_uint32(seed), high, _to_uint32(step), _to_uint32(purpose))
    indices = _to_uint32(indices)
    key0, key1, _, _ = _pcg4d(a, b, indices, tf.zeros_like(indices))
    return tf.stack([key0, key1], axis=-1)


def derive(keys, purpose):
    """Derives independent keys for another purpose: a string, or an integer such as a step.

    Args:
        keys: uint32 tensor `[B, 2]` from `example_keys`.
        purpose: A string, an int or an integer scalar tensor such as a loop counter.

    Returns:
        uint32 tensor `[B, 2]`.
    """
    # The constant separates derived keys from the pixel counters, which have 0 in that word.
    a, b, _, _ = _pcg4d(keys[:, 0], keys[:, 1], _to_uint32(purpose), _u32(0x9E3779B9))
    return tf.stack([a, b], axis=-1)


def _bits(keys, count):
    """`count` random uint32 words per example, `[B, count]`."""
    blocks = -(-count // 4)
    counter = tf.cast(tf.range(blocks), tf.uint32)[None, :]
    words = _pcg4d(keys[:, :1], keys[:, 1:], counter, _u32(0))
    return tf.concat(words, axis=1)[:, :count]


def uniform(keys, shape, minval=0.0, maxval=1.0):
    """Uniform noise in (minval, maxval), `[B, *shape]` float32.

    Args:
        keys: uint32 tensor `[B, 2]`.
        shape: Static shape of one example's noise, without the batch axis.
        minval: Lower end.
        maxval: Upper end.

    Returns:
        float32 tensor `[B, *shape]`.
    """
    count = 1
    for side in shape:
        count *= side
    # 23 bits and a half are exact in float32, so rounding never reaches either end.
    top = tf.bitwise.right_shift(_bits(keys, count), _u32(9))
    unit = (tf.cast(tf.cast(top, tf.int32), tf.float32) + 0.5) * 2.0**-23
    return tf.reshape(minval + unit * (maxval - minval), [-1, *shape])


def normal(keys, shape):
    """Standard normal noise, `[B, *shape]` float32, by inverse transform sampling.

    Args:
        keys: uint32 tensor `[B, 2]`.
        shape: Static shape of one example's noise, without the batch axis.

    Returns:
        float32 tensor `[B, *shape]`; its largest magnitude is 5.3.
    """
    return tf.math.ndtri(uniform(keys, shape))


def symmetric_beta(keys, concentration):
    r"""Noise from the distribution $\mathrm{Beta}(a, a)$, `[B]` float32, one number per example.

    The distribution function, a regularized incomplete beta function, is inverted by bisection in
    float64.

    Args:
        keys: uint32 tensor `[B, 2]`.
        concentration: a, larger than 0; 1 is uniform, and below 1 most values are near 0 or 1.

    Returns:
        float32 tensor `[B]` in [0, 1].

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import random
    >>> keys = random.example_keys(0, tf.range(1000), purpose="example")
    >>> shares = random.symmetric_beta(keys, 0.2)
    >>> bool(tf.reduce_mean(tf.cast(abs(shares - 0.5) > 0.4, tf.float32)) > 0.6)
    True
    """
    target = tf.cast(uniform(keys, ()), tf.float64)
    a = tf.fill(tf.shape(target), tf.constant(concentration, tf.float64))
    low, high = tf.zeros_like(target), tf.ones_like(target)
    for _ in range(26):  # float32 has 24 bits
        middle = (low + high) / 2
        below = tf.math.betainc(a, a, middle) < target
        low, high = tf.where(below, middle, low), tf.where(below, high, middle)
    return tf.cast((low + high) / 2, tf.float32)
