"""Where TensorFlow's second derivatives are silently wrong, and exact replacements.

A curvature penalty is differentiated twice: with respect to the input, then with respect to the
weights. Three TensorFlow functions have a correct first and a wrong second derivative, and raise
no error:

* `tf.nn.max_pool` under XLA picks the window's largest entry after rounding to bfloat16;
* `tf.nn.moments` stops the gradient through the mean (LayerNormalization, GroupNormalization);
* `tf.image.resize` drops the second-order term of bilinear resizing, and has none for bicubic.

Keras layers call all three by these public names (adaptive max-pooling calls `tf.nn.pool`), so
`exact()` replaces them while a network is traced, in the calling thread only: no layer of the
user's network is modified, and all other code sees the original functions.
"""

import contextlib
import functools
import threading

import numpy as np
import tensorflow as tf

from soar_tf.second_order import pooling

_STATE = threading.local()
_INSTALL = threading.Lock()
_ORIGINAL = {}
_MAX_POOLS = ("max_pool", "max_pool1d", "max_pool2d", "max_pool3d")
_HALF = ("float16", "bfloat16")


@contextlib.contextmanager
def exact(*, xla=True):
    """Context in which networks are traced with functions whose second derivatives are exact.

    Args:
        xla: Whether the trace may be compiled by XLA. `False` keeps TensorFlow's max-pooling, whose
            second derivative is correct outside XLA, and which is faster there; disjoint windows
            and ReLU get a faster second derivative.

    Yields:
        A set, to which `"max_pool"`, `"moments"` and `"resize"` are added when they are replaced.

    Example:

    >>> import keras
    >>> from soar_tf.second_order import replacements
    >>> layer = keras.layers.MaxPooling2D(2)
    >>> with replacements.exact() as used:
    ...     layer(keras.ops.reshape(keras.ops.arange(4.0), (1, 2, 2, 1))).numpy().item()
    3.0
    >>> used
    {'max_pool'}
    """
    _install()
    active = {"moments": moments, "resize": resize}
    if xla:
        active |= dict.fromkeys(_MAX_POOLS, max_pool) | {"pool": pool}
    else:
        active |= {"max_pool": fast_max_pool, "max_pool2d": fast_max_pool, "relu": fast_relu}
    previous = getattr(_STATE, "active", None)
    used = set()
    _STATE.active = (active, used)
    try:
        yield used
    finally:
        _STATE.active = previous


def _install():
    """Puts a dispatcher in front of each function, once: a swap would leak between threads."""
    with _INSTALL:
        if _ORIGINAL:
            return
        names = [(tf.nn, name) for name in ("moments", "pool", "relu", *_MAX_POOLS)]
        for module, name in [*names, (tf.image, "resize")]:
            _ORIGINAL[name] = getattr(module, name)
            setattr(module, name, _dispatcher(name))


def _dispatcher(name):
    original = _ORIGINAL[name]

    @functools.wraps(original)
    def dispatch(*args, **kwargs):
        active = _active()[0]
        return active.get(name, original)(*args, **kwargs)

    return dispatch


def _active():
    """The replacements in the calling thread's context, and the set of those used."""
    return getattr(_STATE, "active", None) or ({}, set())


def _original(module, name):
    return _ORIGINAL.get(name) or getattr(module, name)


def moments(x, axes, shift=None, keepdims=False, name=None):
    """`tf.nn.moments` without its `stop_gradient` through the mean."""
    del shift, name
    _active()[1].add("moments")
    x = tf.convert_to_tensor(x)
    # Sums over many half-precision entries overflow; TensorFlow casts them as well.
    wide = tf.cast(x, tf.float32) if x.dtype.name in _HALF else x
    mean = tf.reduce_mean(wide, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(wide, mean), axes, keepdims=True)
    if not keepdims:
        # The axes now have length 1. `tf.squeeze` would not accept them as a tensor.
        mean, variance = tf.reduce_sum(mean, axes), tf.reduce_sum(variance, axes)
    return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def resize(
    images, size, method="bilinear", preserve_aspect_ratio=False, antialias=False, name=None
):
    """`tf.image.resize` as two matrix products (resizing is linear).

    Half-precision images become float32, as in TensorFlow; float64 images stay float64.
    """
    images = tf.convert_to_tensor(images)
    one_axis = functools.partial(
        _original(tf.image, "resize"), method=method, antialias=antialias, name=name
    )
    if not images.dtype.is_floating or len(images.shape) not in (3, 4):
        return one_axis(images, size, preserve_aspect_ratio=preserve_aspect_ratio)
    _active()[1].add("resize")
    nearest = method == tf.image.ResizeMethod.NEAREST_NEIGHBOR
    wide = images if images.dtype == tf.float64 else tf.cast(images, tf.float32)
    sides = [pooling.length(wide, axis) for axis in (-3, -2)]
    targets = _targets(sides, size, preserve_aspect_ratio)
    rows, columns = (
        tf.cast(_interpolation(one_axis, side, target), wide.dtype)
        for side, target in zip(sides, targets, strict=True)
    )
    resized = tf.einsum("...hwc,hp,wq->...pqc", wide, rows, columns)
    return tf.cast(resized, images.dtype) if nearest else resized


def _interpolation(one_axis, side, target):
    """The matrix `[side, target]` of resizing along one axis, built by the original function."""

    def build():
        basis = tf.eye(side, dtype=tf.float32)[:, :, None, None]
        return one_axis(basis, tf.stack([target, 1]))[:, :, 0, 0]

    if isinstance(side, int) and isinstance(target, int):
        # A constant in the graph, since XLA cannot compile every kind of resizing.
        with tf.init_scope():
            matrix = build()
            matrix = matrix.numpy() if tf.executing_eagerly() else matrix
        return tf.convert_to_tensor(matrix)
    return build()


def _targets(sides, size, preserve_aspect_ratio):
    """The resized height and width, as Python integers if static."""
    known = tf.get_static_value(size) if tf.is_tensor(size) else size
    if known is None:
        targets = tf.unstack(tf.cast(size, tf.int32), num=2)
    else:
        targets = [int(side) for side in known]
    if not preserve_aspect_ratio:
        return targets
    lengths = [tf.cast(side, tf.float32) for side in sides]
    factor = tf.minimum(
        *(tf.cast(t, tf.float32) / n for t, n in zip(targets, lengths, strict=True))
    )
    scaled = [tf.round(factor * length) for length in lengths]
    known = [tf.get_static_value(side) for side in scaled]
    return [
        tf.cast(side, tf.int32) if value is None else int(value)
        for side, value in zip(scaled, known, strict=True)
    ]


def max_pool(input, ksize, strides, padding, data_format=None, name=None):
    """`tf.nn.max_pool` and its 1D, 2D and 3D forms, by selection: see `pooling`."""
    x = tf.convert_to_tensor(input)
    rank = len(x.shape) - 2
    channels_first = bool(data_format) and data_format.startswith("NC")
    sizes = [pooling.full_sizes(value, rank, channels_first) for value in (ksize, strides)]
    if any(value[0] != 1 or value[1 if channels_first else -1] != 1 for value in sizes):
        # Pooling over channels: TensorFlow has no gradient for it and raises.
        return _original(tf.nn, "max_pool")(x, ksize, strides, padding, data_format, name)
    spatial = slice(2, None) if channels_first else slice(1, -1)
    window, stride = (value[spatial] for value in sizes)
    padding = padding if isinstance(padding, str) else list(padding)[spatial]
    return _pooled(x, window, stride, padding, [1] * rank, channels_first)


def fast_max_pool(input, ksize, strides, padding, data_format=None, name=None):
    """`tf.nn.max_pool` outside XLA; disjoint 2D windows use `disjoint_max_pool`."""
    original = _original(tf.nn, "max_pool")
    x = tf.convert_to_tensor(input)
    if len(x.shape) == 4 and data_format in (None, "NHWC") and padding == "VALID":
        sizes, steps = (pooling.full_sizes(value, 2, False) for value in (ksize, strides))
        if sizes == steps and sizes[0] == sizes[3] == 1:
            return pooling.disjoint_max_pool(x, sizes[1:3], padding, original)
    return original(x, ksize, strides, padding, data_format, name)


def fast_relu(features, name=None):
    """`tf.nn.relu` with a second derivative that is known to be zero (`None`).

    TensorFlow writes and adds a tensor of zeros in every layer: 5 % of a SOAR step.
    """
    original = _original(tf.nn, "relu")

    @tf.custom_gradient
    def activated(x):
        y = original(x, name)
        return y, lambda upstream: masked(upstream, y)

    @tf.custom_gradient
    def masked(upstream, y):
        def gradient(downstream):
            return tf.raw_ops.ReluGrad(gradients=downstream, features=y), None

        return tf.raw_ops.ReluGrad(gradients=upstream, features=y), gradient

    return activated(tf.convert_to_tensor(features))


def pool(
    input,
    window_shape,
    pooling_type,
    strides=None,
    padding="VALID",
    data_format=None,
    dilations=None,
    name=None,
):
    """`tf.nn.pool` with max-pooling by selection; other pooling types are unchanged."""
    dilated = dilations is not None and np.any(np.greater(dilations, 1))
    if pooling_type != "MAX" or (dilated and padding == "SAME"):  # which TensorFlow rejects
        arguments = (strides, padding, data_format, dilations, name)
        return _original(tf.nn, "pool")(input, window_shape, pooling_type, *arguments)
    x = tf.convert_to_tensor(input)
    rank = len(x.shape) - 2
    channels_first = bool(data_format) and data_format.startswith("NC")
    window, stride, dilation = (
        [1] * rank if value is None else pooling.full_sizes(value, rank, False)[1:-1]
        for value in (window_shape, strides, dilations)
    )
    if not isinstance(padding, str):
        padding = list(padding)[2:] if channels_first else list(padding)[1:-1]
    return _pooled(x, window, stride, padding, dilation, channels_first)


def _pooled(*arguments):
    _active()[1].add("max_pool")
    return pooling.select_largest(*arguments)
