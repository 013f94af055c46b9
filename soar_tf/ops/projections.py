"""Projections onto the threat model: a norm ball around `x`, cut with the pixel box."""

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
        epsilon: Radius, in units of the pixel range: float or scalar tensor.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
        float tensor `[B, ...]`.
    """
    check_choice(norm, "norm", norms.NAMES)
    if norm == "linf":
        return tf.clip_by_value(delta, -epsilon, epsilon)
    if norm == "l1":
        # The hint keeps a Python float from being rounded to float32 on its way to float64.
        radius = tf.convert_to_tensor(epsilon, dtype_hint=delta.dtype)
        return _project_l1(delta, tf.cast(radius, delta.dtype))
    size = norms.norm(delta, "l2")
    scale = tf.minimum(1.0, tf.math.divide_no_nan(epsilon, size))
    return delta * norms.per_example(tf.where(size > epsilon, scale, 1.0), delta)


def project(x_adv, x, epsilon, norm, bounds):
    """Projects `x_adv` onto the ball around `x`, then onto the pixel box.

    Clipping to the box moves every pixel towards `x` (which lies in the box), so the result is
    inside the ball as well; for l2 and l1 it need not be the nearest point of the intersection.

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


def random_in_ball(keys, shape, epsilon, norm):
    """Draws a uniform point of the ball of radius `epsilon`, one per key.

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
