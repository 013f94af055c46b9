"""Per-example vector norms and their balls. `x` is `[B, ...]`, results are `[B]`."""

import tensorflow as tf

from soar_tf.errors import check_choice

NAMES = ("linf", "l2", "l1")


def flatten(x):
    """`[B, ...]` -> `[B, d]`."""
    return tf.reshape(x, [tf.shape(x)[0], -1])


def per_example(values, like):
    """Reshapes `[B]` values to `[B, 1, ..., 1]`, so that they broadcast over `like` `[B, ...]`."""
    return tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))


def norm(x, name):
    """The l-infinity, l2 or l1 norm of each example.

    The l2 norm of a zero vector has gradient zero here; `tf.norm` would give NaN.

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
