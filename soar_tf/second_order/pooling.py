"""Max-pooling by selection (exact under XLA as well), and with a fast second derivative."""

import itertools
import numbers

import tensorflow as tf


def select_largest(x, window, stride, padding, dilation, channels_first):
    """Max-pooling as the sum of each window's first largest entry.

    Args:
        x: Tensor `[B, *spatial, C]`, or `[B, C, *spatial]` if `channels_first`.
        window: The window's side lengths, one integer per spatial axis.
        stride: The strides, likewise.
        padding: `"VALID"`, `"SAME"` or a list of `(before, after)`, one pair per spatial axis.
        dilation: The distances between a window's entries, one integer per spatial axis.
        channels_first: Whether the channels come before the spatial axes.

    Returns:
        The pooled tensor; at a tie, the gradient goes to the first of the largest entries.
    """
    rank = len(window)
    if channels_first:
        moved = tf.transpose(x, [0, *range(2, rank + 2), 1])
        pooled = select_largest(moved, window, stride, padding, dilation, False)
        return tf.transpose(pooled, [0, rank + 1, *range(1, rank + 1)])
    widths = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    x = _padded(x, widths, stride, padding)
    sizes = [(length(x, i + 1) - widths[i]) // stride[i] + 1 for i in range(rank)]
    shifted = []
    offsets = [range(0, width, step) for width, step in zip(widths, dilation, strict=True)]
    for offset in itertools.product(*offsets):
        spatial = [
            slice(offset[i], offset[i] + (sizes[i] - 1) * stride[i] + 1, stride[i])
            for i in range(rank)
        ]
        shifted.append(x[(slice(None), *spatial)])
    entries = tf.stack(shifted, axis=-1)
    largest = tf.argmax(entries, axis=-1)
    mask = tf.one_hot(largest, len(shifted), on_value=True, off_value=False, dtype=tf.bool)
    # Not a product: an infinite entry times 0 is NaN.
    return tf.reduce_sum(tf.where(mask, entries, tf.zeros([], entries.dtype)), axis=-1)


def disjoint_max_pool(x, window, padding, original):
    """Max-pooling with disjoint windows, and with a faster second derivative outside XLA.

    A window passes its gradient to one entry, and the second derivative picks that entry: the mean
    over the window, times its size, of the product with a mask, which is the first derivative of
    ones. Both are vectorised; TensorFlow's kernel for it (`MaxPoolGradGrad`) is not.

    Args:
        x: Tensor `[B, H, W, C]`.
        window: `(height, width)` of the window, which is also the stride.
        padding: `"VALID"`.
        original: The original `tf.nn.max_pool`.

    Returns:
        The pooled tensor.
    """
    sizes = [1, *window, 1]

    @tf.custom_gradient
    def pool(x):
        pooled = original(x, sizes, sizes, padding)
        return pooled, lambda upstream: pool_gradient(x, pooled, upstream)

    @tf.custom_gradient
    def pool_gradient(x, pooled, upstream):
        def gradient(downstream):
            mask = tf.stop_gradient(spread(x, pooled, tf.ones_like(pooled)))
            picked = tf.nn.avg_pool2d(mask * downstream, sizes, sizes, padding)
            return None, None, picked * (window[0] * window[1])

        return spread(x, pooled, upstream), gradient

    def spread(x, pooled, upstream):
        return tf.raw_ops.MaxPoolGrad(
            orig_input=x,
            orig_output=pooled,
            grad=upstream,
            ksize=sizes,
            strides=sizes,
            padding=padding,
        )

    return pool(x)


def length(x, axis):
    """The length of an axis: a Python integer if static, else a tensor."""
    return tf.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]


def full_sizes(value, rank, channels_first):
    """A window or stride with entries for the batch and channel axes."""
    values = [int(value)] if isinstance(value, numbers.Integral) else [int(v) for v in value]
    if len(values) == rank + 2:
        return values
    spatial = values * rank if len(values) == 1 else values
    return [1, 1, *spatial] if channels_first else [1, *spatial, 1]


def _padded(x, widths, stride, padding):
    if padding == "VALID":
        return x
    if padding == "SAME":
        padding = []
        for axis, (width, step) in enumerate(zip(widths, stride, strict=True)):
            size = length(x, axis + 1)
            total = (-(-size // step) - 1) * step + width - size
            total = max(total, 0) if isinstance(total, int) else tf.maximum(total, 0)
            padding.append((total // 2, total - total // 2))
    return tf.pad(x, [(0, 0), *map(tuple, padding), (0, 0)], constant_values=x.dtype.min)
