"""Projection onto a hyperplane within the pixel box: the inner problem of the FAB attack."""

import tensorflow as tf

from soar_tf.ops import norms
from soar_tf.validation import check_choice


def project_onto_hyperplane(x, normal, gap, norm, bounds):
    r"""The exact smallest step onto a hyperplane that stays in the pixel box.

    $$\min_d \|d\| \quad\text{s.t.}\quad w^\top d = c, \quad low \le x + d \le high$$

    Every coordinate moves towards the hyperplane, by $\min(\lambda, r_i)$ (linf) or
    $\min(\lambda |w_i|, r_i)$ (l2), where $r_i$ is its distance to the face of the box. The
    progress is concave and piecewise linear in $\lambda$, so Newton's method from 0 approaches the
    solution from below and reaches it exactly after a few steps, without sorting. For l1 a unit of
    length gains $|w_i|$, so the coordinates move one after the other, steepest first, each as far
    as the box allows, until the hyperplane is reached.

    Args:
        x: float tensor `[B, ...]` inside `bounds`.
        normal: float tensor `[B, ...]`, w.
        gap: float tensor `[B]`, c.
        norm: `"linf"`, `"l2"` or `"l1"`, the norm to minimise.
        bounds: `(low, high)` of the pixel range.

    Returns:
        float tensor `[B, ...]`, d. If the hyperplane does not intersect the box, every coordinate
        moves as far as the box allows; coordinates with $w_i = 0$ never move.

    Reference: Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive
    boundary attack", arXiv:1907.02044, section 3.1.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops.hyperplane import project_onto_hyperplane
    >>> x, w = tf.constant([[0.5, 0.9]]), tf.constant([[1.0, 1.0]])
    >>> project_onto_hyperplane(x, w, tf.constant([0.5]), "linf", (0.0, 1.0)).numpy().round(3)
    array([[0.4, 0.1]], dtype=float32)
    """
    check_choice(norm, "norm", norms.NAMES)
    low, high = bounds
    shape = tf.shape(x)
    # Scaling w and c alike does not change the hyperplane, and keeps w^2 from underflowing.
    scale = norms.norm(normal, "linf")
    scale = tf.where(scale > 0, scale, tf.ones_like(scale))
    normal, gap = norms.flatten(normal) / scale[:, None], gap / scale
    direction = tf.sign(normal) * tf.sign(gap)[:, None]
    flat = norms.flatten(x)
    max_move = tf.where(direction > 0, high - flat, flat - low)
    weight = tf.abs(normal)
    if norm == "l1":
        move = _steepest_first(weight, max_move, tf.abs(gap))
        return tf.reshape(direction * move, shape)
    # The multiplier up to which a coordinate is free, and its gain per unit of the multiplier.
    limit = max_move if norm == "linf" else tf.math.divide_no_nan(max_move, weight)
    rate = weight if norm == "linf" else tf.square(weight)
    multiplier = _solve(limit, rate, tf.abs(gap))[:, None]
    free = multiplier if norm == "linf" else multiplier * weight
    move = tf.where(multiplier < limit, free, max_move)
    return tf.reshape(tf.where(weight > 0, direction * move, 0.0), shape)


def _steepest_first(weight, max_move, gain):
    """Moves of least sum with sum(weight * move) = gain and 0 <= move <= max_move."""
    order = tf.argsort(weight, axis=1, direction="DESCENDING", stable=True)
    weight, max_move = (tf.gather(values, order, batch_dims=1) for values in (weight, max_move))
    reached = tf.cumsum(weight * max_move, axis=1, exclusive=True)
    remaining = tf.maximum(gain[:, None] - reached, 0.0)
    move = tf.minimum(tf.math.divide_no_nan(remaining, weight), max_move)
    rows = tf.repeat(tf.range(tf.shape(order)[0])[:, None], tf.shape(order)[1], axis=1)
    return tf.scatter_nd(tf.stack([rows, order], axis=2), move, tf.shape(order))


def _solve(limit, rate, gain):
    """The least multiplier with sum(rate * min(multiplier, limit)) = gain, or infinity."""

    def body(multiplier, _):
        free = multiplier[:, None] < limit
        slope = tf.reduce_sum(tf.where(free, rate, 0.0), axis=1)
        saturated = tf.reduce_sum(tf.where(free, 0.0, rate * limit), axis=1)
        infinite = tf.fill(tf.shape(slope), tf.constant(float("inf"), slope.dtype))
        reached = tf.where(slope > 0, (gain - saturated) / slope, infinite)
        # The result depends only on the set of free coordinates, so an unchanged set is a fixed
        # point; the maximum prevents cycles by rounding.
        reached = tf.maximum(reached, multiplier)
        return reached, tf.reduce_any(reached > multiplier)

    start = tf.zeros_like(gain)
    return tf.while_loop(lambda _, moving: moving, body, (start, True), parallel_iterations=1)[0]
