"""Derivatives with respect to the input: nested gradient tapes are used here and nowhere else.

Every function works per example: `values_fn` maps `x` `[B, ...]` to values `[B]`, where value i
depends on example i alone, so the gradient of their sum consists of the per-example gradients.
"""

import math

import tensorflow as tf


def input_gradient(values_fn, x, *, has_aux=False):
    """Values and per-example input gradients.

    Args:
        values_fn: Callable `[B, ...] -> [B]`.
        x: float tensor `[B, ...]`.
        has_aux: Whether `values_fn` returns `(values, aux)`, with auxiliary results such as the
            logits.

    Returns:
        `(values [B], gradient [B, ...])`, followed by `aux` with `has_aux`. All are differentiable
        under an outer tape.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops.gradients import input_gradient
    >>> input_gradient(lambda x: tf.reduce_sum(x**2, axis=1), tf.constant([[1.0, 2.0]]))[1].numpy()
    array([[2., 4.]], dtype=float32)
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        values, *aux = values_fn(x) if has_aux else (values_fn(x),)
        total = tf.reduce_sum(values)
    return values, _gradient(tape, total, x), *aux


def input_gradients(values_fn, x, *, has_aux=False):
    """Several values and their per-example input gradients, from one forward pass.

    Args:
        values_fn: Callable `[B, ...] -> [B, m]`.
        x: float tensor `[B, ...]`.
        has_aux: See `input_gradient`.

    Returns:
        `(values [B, m], gradients)`, the latter a list of m tensors `[B, ...]`, followed by `aux`
        with `has_aux`. All are differentiable under an outer tape.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        values, *aux = values_fn(x) if has_aux else (values_fn(x),)
        totals = tf.unstack(tf.reduce_sum(values, axis=0), num=values.shape[-1])
    return values, [_gradient(tape, total, x) for total in totals], *aux


def input_and_weight_gradient(values_fn, x, weights, *, has_aux=False):
    """Values, per-example input gradients and the gradient of their sum in the weights.

    One backward pass computes both: on its way to the input it produces the gradient at every
    layer's output, so a weight's gradient costs no more than it does in a plain training step.

    Args:
        values_fn: Callable `[B, ...] -> [B]`.
        x: float tensor `[B, ...]`.
        weights: List of variables.
        has_aux: See `input_gradient`.

    Returns:
        `(values [B], gradient [B, ...], weight_gradients)`, the last a list with `None` where the
        values do not depend on the weight, followed by `aux` with `has_aux`.
    """
    with tf.GradientTape() as tape:
        tape.watch(x)
        values, *aux = values_fn(x) if has_aux else (values_fn(x),)
        total = tf.reduce_sum(values)
    gradient, *weight_gradients = tape.gradient(total, [x, *weights])
    return values, tf.zeros_like(x) if gradient is None else gradient, weight_gradients, *aux


def hvp_finite_difference(values_fn, x, direction, h, *, gradient=None):
    r"""Hessian-vector product by a forward difference of input gradients (eq. 9).

    $$\nabla^2 \ell(x)\, v \approx \frac{\nabla\ell(x + h v) - \nabla\ell(x)}{h}$$

    Args:
        values_fn: Callable `[B, ...] -> [B]`.
        x: float tensor `[B, ...]`.
        direction: float tensor `[B, ...]`, `v`; with unit l2 norm, h is a distance.
        h: Step, `[B]` or scalar; see `soar_tf.ops.curvature` for its useful range.
        gradient: The gradient at `x`, if already known.

    Returns:
        float tensor `[B, ...]`, differentiable under an outer tape.
    """
    if gradient is None:
        _, gradient = input_gradient(values_fn, x)
    h = tf.reshape(tf.cast(h, x.dtype), [-1] + [1] * (len(x.shape) - 1))
    _, moved = input_gradient(values_fn, x + h * direction)
    return (moved - gradient) / h


def hvp_exact(values_fn, x, direction):
    r"""Exact Hessian-vector product, $\nabla_x (\nabla\ell(x)^\top v)$, by reverse over reverse.

    On piecewise-linear networks this is the Hessian almost everywhere, which misses the kinks that
    a finite difference sees.

    Args:
        values_fn: Callable `[B, ...] -> [B]`.
        x: float tensor `[B, ...]`.
        direction: float tensor `[B, ...]`, treated as a constant.

    Returns:
        float tensor `[B, ...]`, differentiable under an outer tape.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        _, gradient = input_gradient(values_fn, x)
        total = tf.reduce_sum(gradient * tf.stop_gradient(direction))
    return _gradient(tape, total, x)


def hessian(values_fn, x):
    """Exact Hessians with respect to the input, for low-dimensional inputs.

    Computes one Hessian-vector product per coordinate.

    Args:
        values_fn: Callable `[B, ...] -> [B]`.
        x: float tensor `[B, ...]` with d coordinates per example.

    Returns:
        float tensor `[B, d, d]`.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops.gradients import hessian
    >>> hessian(lambda x: x[:, 0] ** 2 * x[:, 1], tf.constant([[1.0, 2.0]])).numpy()[0].tolist()
    [[4.0, 2.0], [2.0, 0.0]]
    """
    d = math.prod(x.shape[1:])
    rows = []
    for i in range(d):
        unit = tf.reshape(tf.one_hot(i, d, dtype=x.dtype), [1, *x.shape[1:]])
        product = hvp_exact(values_fn, x, tf.broadcast_to(unit, tf.shape(x)))
        rows.append(tf.reshape(product, [-1, d]))
    return tf.stack(rows, axis=1)


def _gradient(tape, total, x):
    # UnconnectedGradients.ZERO would also hide None inside nested structures; x is one tensor.
    gradient = tape.gradient(total, x)
    return tf.zeros_like(x) if gradient is None else gradient
