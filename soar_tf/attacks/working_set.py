"""The working set of an iterative attack: the examples that it has not broken yet.

Loop state is a named tuple of tensors with one row per example. Rows leave it as soon as their
example is broken, so the cost of an iteration follows the survivors; shapes are unknown along that
axis, so nothing is traced again.
"""

import tensorflow as tf

from soar_tf.attacks.attack import gather
from soar_tf.ops import gradients

_STEEPEST = 1e15


def open_rows(rows):
    """The shape invariants of a loop in which the number of rows changes."""
    return tf.nest.map_structure(lambda t: tf.TensorShape([None, *t.shape[1:]]), rows)


def take(indices, rows):
    """Takes rows of a structure of tensors."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, indices), rows)


def retire(result, index, points, done, rows):
    """Writes the points of finished examples into `result` and drops their rows.

    Args:
        result: float32 tensor `[B, ...]`, the attack's results so far.
        index: int tensor `[n]`, where each row lies in `result`.
        points: float32 tensor `[n, ...]`.
        done: bool tensor `[n]`.
        rows: Structure of tensors `[n, ...]`.

    Returns:
        `(result, rows)`. If no example is done nothing is copied.
    """

    def drop():
        finished, left = tf.where(done)[:, 0], tf.where(~done)[:, 0]
        where, values = gather(finished, index, points)
        return tf.tensor_scatter_nd_update(result, where[:, None], values), take(left, rows)

    return tf.cond(tf.reduce_any(done), drop, lambda: (result, rows))


def evaluate(logits_fn, loss_fn, x):
    """Logits, per-example loss and its input gradient, from one pass.

    Coordinates of the gradient that are NaN count as 0, infinite ones as very steep.

    Args:
        logits_fn: Callable `[n, ...] -> [n, C]`.
        loss_fn: Callable `[n, C] -> [n]`.
        x: float32 tensor `[n, ...]`.

    Returns:
        `(logits [n, C], values [n], gradient [n, ...])`.
    """

    def values_fn(point):
        logits = logits_fn(point)
        return loss_fn(logits), logits

    values, gradient, logits = gradients.input_gradient(values_fn, x, has_aux=True)
    # One NaN would spread over the image and end the attack on it: a network could hide behind a
    # square root at 0. Infinite slopes keep their direction, at a size whose square is finite.
    slopes = tf.clip_by_value(gradient, -_STEEPEST, _STEEPEST)
    return logits, values, tf.where(tf.math.is_nan(slopes), 0.0, slopes)


def ranked_targets(y, logits, count):
    """The `count` most likely other classes of each example, most likely first, `[B, count]`."""
    raised = logits + 1e9 * tf.one_hot(y, logits.shape[-1], dtype=logits.dtype)
    return tf.cast(tf.nn.top_k(raised, count + 1).indices[:, 1:], y.dtype)
