"""Where TensorFlow's second derivatives are silently wrong, and exact replacements.

A curvature penalty is differentiated twice: once by the input, once by the weights. Three
TensorFlow functions have a right first and a wrong second derivative, without any error:

* `tf.nn.max_pool` under XLA picks the window's largest entry after rounding to bfloat16;
* `tf.nn.moments` stops the gradient through the mean (LayerNormalization, GroupNormalization);
* `tf.image.resize` drops the second-order term of bilinear resizing, and has none for bicubic.

Keras layers call all three by these public names, so `exact()` replaces them while a network is
traced, in the calling thread only: no layer of the user's network is touched, and any other code
sees TensorFlow's own functions.
"""

import contextlib
import functools
import itertools
import threading

import tensorflow as tf

_STATE = threading.local()
_INSTALL = threading.Lock()
_ORIGINAL = {}


@contextlib.contextmanager
def exact(*, xla=True):
    """Context in which networks are traced with functions whose second derivatives are exact.

    Args:
        xla: Whether the trace may be compiled by XLA. `False` keeps TensorFlow's own max-pooling,
            whose second derivative is right outside XLA, and which is faster there.

    Example:

    >>> import keras
    >>> from soar_tf.ops import second_order
    >>> layer = keras.layers.MaxPooling2D(2)
    >>> with second_order.exact():
    ...     layer(keras.ops.reshape(keras.ops.arange(4.0), (1, 2, 2, 1))).numpy().item()
    3.0
    """
    _install()
    previous = getattr(_STATE, "replacements", None)
    active = {"moments": moments, "resize": resize}
    if xla:
        active["max_pool"] = max_pool
    _STATE.replacements = active
    try:
        yield
    finally:
        _STATE.replacements = previous


def _install():
    """Puts a dispatcher before each function, once: a plain swap would leak between threads."""
    with _INSTALL:
        if _ORIGINAL:
            return
        for module, name in ((tf.nn, "moments"), (tf.nn, "max_pool"), (tf.image, "resize")):
            _ORIGINAL[name] = getattr(module, name)
            setattr(module, name, _dispatcher(name))


def _dispatcher(name):
    original = _ORIGINAL[name]

    @functools.wraps(original)
    def dispatch(*args, **kwargs):
        replacements = getattr(_STATE, "replacements", None) or {}
        return replacements.get(name, original)(*args, **kwargs)

    return dispatch


def moments(x, axes, shift=None, keepdims=False, name=None):
    """`tf.nn.moments` without its `stop_gradient` through the mean."""
    del shift, name
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=True)
    return (mean, variance) if keepdims else (tf.squeeze(mean, axes), tf.squeeze(variance, axes))


def resize(
    images, size, method="bilinear", preserve_aspect_ratio=False, antialias=False, name=None
):
    """`tf.image.resize` as the two matrix products that it is (resizing is linear)."""
    del name
    original = functools.partial(_ORIGINAL.get("resize", tf.image.resize), antialias=antialias)
    if preserve_aspect_ratio or not images.dtype.is_floating or None in images.shape[-3:-1]:
        return original(images, size, method=method, preserve_aspect_ratio=preserve_aspect_ratio)

    def matrix(length, target):
        basis = tf.eye(length, dtype=tf.float32)[:, :, None, None]
        return tf.cast(original(basis, (target, 1), method=method)[:, :, 0, 0], images.dtype)

    rows = matrix(images.shape[-3], int(size[0]))
    columns = matrix(images.shape[-2], int(size[1]))
    return tf.einsum("...hwc,hp,wq->...pqc", images, rows, columns)


def max_pool(input, ksize, strides, padding, data_format=None, name=None):
    """`tf.nn.max_pool` by selection: the window's first largest entry, exact in any order."""
    del name
    rank = len(input.shape) - 2
    if data_format is not None and data_format.startswith("NC"):
        forward = [0, *range(2, rank + 2), 1]
        pooled = max_pool(tf.transpose(input, forward), ksize, strides, padding)
        return tf.transpose(pooled, [0, rank + 1, *range(1, rank + 1)])
    window, stride = _spatial(ksize, rank), _spatial(strides, rank)
    if padding == "SAME":
        input = _pad_same(input, window, stride)
    sizes = [(input.shape[i + 1] - window[i]) // stride[i] + 1 for i in range(rank)]
    shifted = []
    for offset in itertools.product(*(range(side) for side in window)):
        spatial = [
            slice(offset[i], offset[i] + (sizes[i] - 1) * stride[i] + 1, stride[i])
            for i in range(rank)
        ]
        shifted.append(input[(slice(None), *spatial)])
    entries = tf.stack(shifted, axis=-1)
    first = tf.argmax(tf.stop_gradient(entries), axis=-1)
    chosen = tf.one_hot(first, len(shifted), on_value=True, off_value=False, dtype=tf.bool)
    # `where` and not a product: padding is -inf, and -inf * 0 is NaN.
    return tf.reduce_sum(tf.where(chosen, entries, tf.zeros([], entries.dtype)), axis=-1)


def _spatial(value, rank):
    values = [value] if isinstance(value, int) else [int(v) for v in value]
    if len(values) == 1:
        return values * rank
    return values if len(values) == rank else values[1:-1]


def _pad_same(x, window, stride):
    paddings = [(0, 0)]
    for size, width, step in zip(x.shape[1:-1], window, stride, strict=True):
        total = max((-(-size // step) - 1) * step + width - size, 0)
        paddings.append((total // 2, total - total // 2))
    return tf.pad(x, [*paddings, (0, 0)], constant_values=x.dtype.min)


@contextlib.contextmanager
def float32(network):
    """Context in which every layer of `network` computes in float32, whatever its policy.

    A finite difference of half-precision gradients is noise: the step h is below the spacing of
    half-precision pixels. Variables are float32 under the mixed policies anyway.

    Args:
        network: A `keras.Model`. To be used while it is traced.
    """
    layers = [
        layer
        for layer in network._flatten_layers()
        if layer.dtype_policy.compute_dtype in ("float16", "bfloat16")
    ]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy
