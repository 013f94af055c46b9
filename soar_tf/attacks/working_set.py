"""The working set of an iterative attack: the examples that it has not broken yet.

Loop state is a named tuple of tensors with one row per example. Rows leave it as soon as their
example is broken, so the cost of an iteration follows the survivors; shapes are unknown along that
axis, so nothing is traced again.

An attack with several runs per example (targets, restarts) gives an example the result of the first
run that breaks it. Few examples leave a processor idle; then several runs of each go on together,
a row for each, with the same result (`over_runs`).
"""

import math

import tensorflow as tf

from soar_tf.attacks.attack import gather
from soar_tf.ops import gradients

_STEEPEST = 1e15
# Rows that are worked on together: more make a pass over small images no cheaper per row. Larger
# images need fewer, and their memory.
_TOGETHER, _COORDINATES = 64, 32 * 32 * 3


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


def over_runs(search, x, runs):
    """An attack's runs, one after the other or several together: the results are the same.

    Args:
        search: Callable `(source, number, together, result) -> (left, result)`: searches from row
            `source[i]` of the batch in run `number[i]`, for every i, and writes what it finds into
            row i of `result`; `left` are the rows that it does not break. The `together` runs of an
            example are neighbours, in order, and those after one that breaks it need not go on:
            see `settled`.
        x: float32 tensor `[B, ...]`.
        runs: Number of runs of each example.

    Returns:
        float32 tensor `[B, ...]`: what the first run found that broke the example, else what the
        last one returned.
    """
    most = min(_TOGETHER, max(1, _TOGETHER * _COORDINATES // math.prod(x.shape[1:])))

    def body(run, active, result):
        count = tf.size(active)
        together = tf.clip_by_value(most // count, 1, runs - run)
        source = tf.repeat(active, together)
        number = run + tf.tile(tf.range(together), [count])
        left, found = search(source, number, together, tf.gather(x, source))
        unbroken = tf.scatter_nd(left[:, None], tf.ones_like(left), tf.shape(source)) > 0
        broken = ~tf.reshape(unbroken, [count, together])
        any_broken = tf.reduce_any(broken, axis=1)
        first = tf.argmax(tf.cast(broken, tf.int32), axis=1, output_type=tf.int32)
        chosen = tf.where(any_broken, first, together - 1) + together * tf.range(count)
        result = tf.tensor_scatter_nd_update(result, active[:, None], tf.gather(found, chosen))
        return run + together, tf.gather(active, tf.where(~any_broken)[:, 0]), result

    return tf.while_loop(
        lambda run, active, _: (run < runs) & (tf.size(active) > 0),
        body,
        (0, tf.range(tf.shape(x)[0]), x),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), x.shape),
        parallel_iterations=1,
    )[2]


def settled(broken, index, together):
    """Which rows need not go on: the broken ones, and their examples' later runs.

    Args:
        broken: bool tensor `[n]`.
        index: int tensor `[n]`, ascending; rows with the same `index // together` are runs of one
            example, in order.
        together: int scalar tensor.

    Returns:
        bool tensor `[n]`.
    """
    example = index // together
    first = tf.math.unsorted_segment_min(
        tf.where(broken, index, index.dtype.max), example, tf.reduce_max(example) + 1
    )
    return index >= tf.gather(first, example)


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
