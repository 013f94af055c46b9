"""Per-example vector norms and their directions. `x` is `[B, ...]`, norms are `[B]`."""

import math

import tensorflow as tf

from soar_tf.validation import check_choice

NAMES = ("linf", "l2", "l1")


def flatten(x):
    """`[B, ...]` -> `[B, d]`."""
    return tf.reshape(x, [tf.shape(x)[0], -1])


def per_example(values, like):
    """Reshapes `[B]` values to `[B, 1, ..., 1]`, so that they broadcast over `like` `[B, ...]`."""
    return tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))


def norm(x, name):
    """The l-infinity, l2 or l1 norm of each example.

    The l2 norm of a zero vector has gradient zero; with `tf.norm` it would be NaN.

    Args:
        x: float tensor `[B, ...]`.
        name: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        float tensor `[B]`.
    """
    check_choice(name, "norm", NAMES)
    x = flatten(x)
    if name == "linf":
        return tf.reduce_max(tf.abs(x), axis=1)
    if name == "l1":
        return tf.reduce_sum(tf.abs(x), axis=1)
    square = tf.reduce_sum(tf.square(x), axis=1)
    positive = square > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, square, 1.0)), 0.0)


def normalize_l2(x):
    """Scales each example to l2 norm 1 (a zero example stays zero)."""
    scale = tf.math.divide_no_nan(tf.ones([], x.dtype), norm(x, "l2"))
    return x * per_example(scale, x)


def cosine(a, b):
    """Cosine of the angle between two vectors of each example.

    Args:
        a: float tensor `[B, ...]`.
        b: float tensor `[B, ...]` of the same shape.

    Returns:
        float tensor `[B]` in [-1, 1] up to rounding; 1, with zero gradient, where one of the
        vectors is zero, since there is no angle to close.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import norms
    >>> norms.cosine(tf.constant([[1.0, 0.0], [0.0, 0.0]]), tf.constant([[0.0, 2.0]] * 2)).numpy()
    array([0., 1.], dtype=float32)
    """
    a, b = (_scale_to_one(flatten(vector)) for vector in (a, b))
    sizes = norm(a, "l2") * norm(b, "l2")
    product = tf.reduce_sum(a * b, axis=1)
    return tf.where(sizes > 0, tf.math.divide_no_nan(product, sizes), 1.0)


def relative_change(a, b):
    r"""The change of a vector per example, relative to its length: $\|b - a\|_2 / \|a\|_2$.

    Args:
        a: float tensor `[B, ...]`.
        b: float tensor `[B, ...]` of the same shape.

    Returns:
        float tensor `[B]`, at least 0; 0, with zero gradient, where `a` is zero.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import norms
    >>> change = norms.relative_change(tf.constant([[3.0, 4.0]]), tf.constant([[3.0, 6.5]]))
    >>> round(float(change[0]), 4)
    0.5
    """
    a, b = flatten(a), flatten(b)
    both = tf.concat([a, b], axis=1)
    # A common constant factor, so that squares neither underflow nor overflow.
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(both), axis=1, keepdims=True))
    a, b = (tf.math.divide_no_nan(vector, largest) for vector in (a, b))
    return tf.math.divide_no_nan(norm(b - a, "l2"), norm(a, "l2"))


def _scale_to_one(flat):
    """Scales the largest coordinate to 1 by a constant: squares of tiny numbers underflow."""
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(flat), axis=1, keepdims=True))
    return tf.math.divide_no_nan(flat, largest)


def steepest_direction(gradient, name):
    r"""The unit-norm direction of steepest ascent, $\arg\max_{\|v\| \le 1} v^\top g$.

    Args:
        gradient: float tensor `[B, ...]`.
        name: Norm of the ball: `"linf"` (the sign), `"l2"` (the normalised gradient) or `"l1"`
            (the signed coordinate of largest magnitude).

    Returns:
        float tensor `[B, ...]`; zero where the gradient is zero.
    """
    check_choice(name, "norm", NAMES)
    if name == "linf":
        return tf.sign(gradient)
    if name == "l2":
        # Scaling first keeps tiny gradients from underflowing when they are squared.
        largest = per_example(norm(gradient, "linf"), gradient)
        return normalize_l2(tf.math.divide_no_nan(gradient, largest))
    flat = flatten(gradient)
    top = tf.one_hot(tf.argmax(tf.abs(flat), axis=1), tf.shape(flat)[1], dtype=flat.dtype)
    return tf.reshape(top * tf.sign(flat), tf.shape(gradient))


def sparse_direction(gradient, share):
    """A direction of l1 norm 1, spread evenly over the coordinates with the steepest slopes.

    The steepest direction moves a single coordinate, which soon hits the pixel range; this one
    moves several at once (Tramer and Boneh 2019, arXiv:1904.13000).

    Args:
        gradient: float tensor `[B, ...]` of static example shape.
        share: Share of the coordinates that move, in (0, 1]; at least one does.

    Returns:
        float tensor `[B, ...]`; coordinates without a slope do not move, nor do ties beyond the
        share.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import norms
    >>> norms.sparse_direction(tf.constant([[3.0, -2.0, 1.0, 0.0]]), 0.5).numpy().tolist()
    [[0.5, -0.5, 0.0, 0.0]]
    """
    flat = flatten(gradient)
    size = math.prod(gradient.shape[1:])
    slopes, indices = tf.math.top_k(tf.abs(flat), max(1, round(share * size)))
    moved = tf.cast(slopes > 0, flat.dtype)
    # One-hot vectors, `[k, d]` per example, would be large for large images: scatter instead.
    rows = tf.repeat(tf.range(tf.shape(flat)[0])[:, None], tf.shape(indices)[1], axis=1)
    chosen = tf.scatter_nd(tf.stack([rows, indices], axis=2), moved, tf.shape(flat))
    count = tf.maximum(tf.reduce_sum(moved, axis=1, keepdims=True), 1.0)
    return tf.reshape(chosen * tf.sign(flat) / count, tf.shape(gradient))


def top_direction(gradient, counts):
    """A direction of l1 norm 1, spread evenly over a given number of steepest coordinates.

    Like `sparse_direction`, but the number differs between examples, and coordinates that tie with
    the last one move as well (Croce and Hein 2021, arXiv:2103.01208).

    Args:
        gradient: float tensor `[B, ...]`.
        counts: int tensor `[B]`, from 1 to the number of coordinates.

    Returns:
        float tensor `[B, ...]`; coordinates without a slope do not move.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import norms
    >>> gradient = tf.constant([[3.0, -2.0, 1.0], [3.0, -2.0, 1.0]])
    >>> norms.top_direction(gradient, tf.constant([1, 2])).numpy().tolist()
    [[1.0, 0.0, 0.0], [0.5, -0.5, 0.0]]
    """
    flat = flatten(gradient)
    size = tf.abs(flat)
    largest_count = tf.maximum(tf.reduce_max(counts), 1)  # of an empty batch it is negative
    steepest = tf.math.top_k(size, largest_count).values
    threshold = tf.gather(steepest, counts - 1, axis=1, batch_dims=1)
    signs = tf.where(size >= threshold[:, None], tf.sign(flat), 0.0)
    count = tf.reduce_sum(tf.abs(signs), axis=1, keepdims=True)
    return tf.reshape(tf.math.divide_no_nan(signs, count), tf.shape(gradient))
