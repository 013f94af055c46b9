"""Projections onto the threat model: a norm ball around `x`, intersected with the pixel box."""

import numpy as np
import tensorflow as tf

from soar_tf.ops import norms, random
from soar_tf.validation import check_choice


def _project_l1(delta, radius):
    """Euclidean projection onto the l1 ball (Duchi et al. 2008, doi:10.1145/1390156.1390191)."""
    flat = norms.flatten(delta)
    sizes = tf.sort(tf.abs(flat), axis=1, direction="DESCENDING")
    count = tf.cast(tf.range(1, tf.shape(flat)[1] + 1), flat.dtype)[None, :]
    excess = (tf.cumsum(sizes, axis=1) - radius) / count
    active = tf.reduce_sum(tf.cast(sizes > excess, tf.int32), axis=1)
    threshold = tf.gather(excess, tf.maximum(active - 1, 0), axis=1, batch_dims=1)
    shrunk = tf.sign(flat) * tf.maximum(tf.abs(flat) - tf.maximum(threshold, 0.0)[:, None], 0.0)
    return tf.reshape(shrunk, tf.shape(delta))


def project_ball(delta, epsilon, norm):
    """Projects each perturbation onto the ball of radius `epsilon`.

    Args:
        delta: float tensor `[B, ...]`.
        epsilon: Radius, in units of the pixel range: float, scalar tensor or one radius per
            example, `[B]`.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        float tensor `[B, ...]`.
    """
    check_choice(norm, "norm", norms.NAMES)
    if norm == "linf":
        if len(getattr(epsilon, "shape", ())):
            epsilon = norms.per_example(epsilon, delta)
        return tf.clip_by_value(delta, -epsilon, epsilon)
    if norm == "l1":
        radius = _as_radius(epsilon, delta)
        return _project_l1(delta, radius[:, None] if radius.shape.rank else radius)
    size = norms.norm(delta, "l2")
    scale = tf.minimum(1.0, tf.math.divide_no_nan(epsilon, size))
    return delta * norms.per_example(tf.where(size > epsilon, scale, 1.0), delta)


def project(x_adv, x, epsilon, norm, bounds):
    """Projects `x_adv` onto the ball around `x`, then onto the pixel box.

    Clipping to the box moves every pixel towards `x` (which is in the box), so the result is still
    in the ball; for l2 and l1 it need not be the nearest point of the intersection.

    Args:
        x_adv: float tensor `[B, ...]`.
        x: float tensor `[B, ...]` inside `bounds`.
        epsilon: Radius, in units of the pixel range.
        norm: `"linf"`, `"l2"` or `"l1"`.
        bounds: `(low, high)` of the pixel range.

    Returns:
        float tensor `[B, ...]`.
    """
    low, high = bounds
    return tf.clip_by_value(x + project_ball(x_adv - x, epsilon, norm), low, high)


def project_l1_box(x_adv, x, epsilon, bounds):
    r"""The exact nearest point in the intersection of the l1 ball around `x` and the pixel box.

    With $\delta = x' - x$ and $r_i$ the distance of coordinate i to the face of the box in its
    direction, the solution moves each coordinate by $\min(\max(|\delta_i| - t, 0), r_i)$, where t
    is the least threshold at which these moves sum to at most `epsilon`. The sum is piecewise
    linear and decreasing in t, so Newton's method, kept inside a bracket, reaches t exactly after a
    few steps, without sorting. `project` clips a projection onto the ball instead, which wastes
    most of the radius where many pixels are at the faces of the box.

    Args:
        x_adv: float tensor `[B, ...]`.
        x: float tensor `[B, ...]` inside `bounds`.
        epsilon: Radius, in units of the pixel range: float, scalar tensor or `[B]`.
        bounds: `(low, high)` of the pixel range.

    Returns:
        float tensor `[B, ...]`; coordinates below the threshold are exactly those of `x`.

    Reference: Croce and Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image
    classifiers", arXiv:2103.01208, proposition 2.1.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import projections
    >>> x, moved = tf.constant([[0.9, 0.2]]), tf.constant([[1.9, 0.9]])
    >>> projections.project_l1_box(moved, x, 0.5, (0.0, 1.0)).numpy().round(3)
    array([[1. , 0.6]], dtype=float32)
    """
    low, high = bounds
    flat = norms.flatten(x)
    delta = norms.flatten(x_adv) - flat
    size = tf.abs(delta)
    max_move = tf.where(delta > 0, high - flat, flat - low)
    radius = _as_radius(epsilon, delta) + tf.zeros_like(size[:, 0])
    threshold = _l1_threshold(size, max_move, radius)
    move = tf.minimum(tf.maximum(size - threshold[:, None], 0.0), max_move)
    # Rounding, of the sum and of each pixel, would push thousands of equal moves out of the ball.
    total = tf.reduce_sum(move, axis=1)
    move *= tf.where(total > radius, radius / total, 1.0)[:, None]
    sign = tf.sign(delta)
    point = flat + sign * move
    moved = tf.abs(point - flat)
    nearer = tf.maximum(moved - tf.abs(point) * np.finfo(point.dtype.as_numpy_dtype).eps, 0.0)
    point = tf.where(moved > move, flat + sign * nearer, point)
    return tf.clip_by_value(tf.reshape(point, tf.shape(x)), low, high)


def _as_radius(epsilon, like):
    # The hint keeps a Python float from being rounded to float32 on its way to float64.
    return tf.cast(tf.convert_to_tensor(epsilon, dtype_hint=like.dtype), like.dtype)


# Newton steps before every second step bisects the bracket: where many coordinates reach the box
# the sum is not convex, and Newton's method alone could stall.
_NEWTON_STEPS = 6
_MAX_STEPS = 100


def _l1_threshold(size, max_move, radius):
    """The least t >= 0 with sum(clip(size - t, 0, max_move)) <= radius, `[B]`."""

    def body(k, t, low, high, _):
        saturated = size - t[:, None] >= max_move  # at the face of the box
        free = ~saturated & (size > t[:, None])
        count = tf.reduce_sum(tf.cast(free, size.dtype), axis=1)
        total = tf.reduce_sum(tf.where(saturated, max_move, tf.where(free, size, 0.0)), axis=1)
        outside = total - count * t > radius
        low, high = tf.where(outside, t, low), tf.where(outside, high, t)
        # The exact solution if the same coordinates stay free and saturated on the way there.
        newton = tf.math.divide_no_nan(total - radius, count)
        middle = 0.5 * (low + high)
        usable = (newton > low) & (newton < high) & ((k < _NEWTON_STEPS) | (k % 2 == 0))
        next_t = tf.where(usable, newton, middle)
        # A fixed point of Newton's method is the solution, and so is 0 if it is in the ball; a
        # bracket that cannot be split further contains nothing better.
        closed = (middle <= low) | (middle >= high)
        solved = ((newton == t) & (count > 0)) | ((t == 0.0) & ~outside)
        next_t = tf.where(solved, t, tf.where(closed, high, next_t))
        return k + 1, next_t, low, high, tf.reduce_any(next_t != t)

    start = (0, tf.zeros_like(radius), tf.zeros_like(radius), tf.reduce_max(size, axis=1), True)
    return tf.while_loop(
        lambda *state: state[-1],
        body,
        start,
        parallel_iterations=1,
        maximum_iterations=_MAX_STEPS,
    )[1]


def random_in_ball(keys, shape, epsilon, norm):
    """Draws a uniform point in the ball of radius `epsilon`, one per key.

    Args:
        keys: uint32 tensor `[B, 2]` (see `soar_tf.ops.random.example_keys`).
        shape: Static shape of one example.
        epsilon: Radius, in units of the pixel range.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        float32 tensor `[B, *shape]`.
    """
    check_choice(norm, "norm", norms.NAMES)
    if norm == "linf":
        return random.uniform(keys, shape, -epsilon, epsilon)
    dimension = 1
    for side in shape:
        dimension *= side
    radius = random.uniform(random.derive(keys, "radius"), ()) ** (1.0 / dimension)
    if norm == "l2":
        direction = norms.normalize_l2(random.normal(keys, shape))
    else:  # exponential variables over their sum are uniform on the simplex; signs are free
        size = -tf.math.log(random.uniform(keys, shape))
        sign = tf.sign(random.uniform(random.derive(keys, "sign"), shape, -1.0, 1.0))
        direction = sign * size / norms.per_example(norms.norm(size, "l1"), size)
    return epsilon * norms.per_example(radius, direction) * direction
