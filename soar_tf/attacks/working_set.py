"""The working set of an iterative attack: the examples that it has not broken yet.

The loop state is a named tuple of tensors with one row per example. Rows leave it as soon as their
example is broken, so an iteration costs only as much as its survivors; shapes are unknown along
that axis, so nothing is retraced.

In an attack with several runs per example (targets, restarts), an example gets the result of the
first run that breaks it. With few examples left, a processor would be idle, so several runs of each
are done in parallel, one row per run, with the same result (`over_runs`).
"""

import math

import tensorflow as tf

from soar_tf.attacks.attack import gather
from soar_tf.ops import gradients

_STEEPEST = 1e15
# Number of rows to fill a pass with: with more, a pass over 32x32x3 images gets no cheaper per row.
# Larger images need fewer rows, and more memory.
_PARALLEL_ROWS, _COORDINATES = 64, 32 * 32 * 3


def open_rows(rows):
    """The shape invariants of a loop in which the number of rows changes."""
    return tf.nest.map_structure(lambda t: tf.TensorShape([None, *t.shape[1:]]), rows)


def take(indices, rows):
    """Gathers rows from a structure of tensors."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, indices), rows)


def retire(result, index, points, done, rows):
    """Writes the points of finished examples into `result` and drops their rows.

    Args:
        result: float32 tensor `[B, ...]`, the attack's results so far.
        index: int tensor `[n]`, the position of each row in `result`.
        points: float32 tensor `[n, ...]`.
        done: bool tensor `[n]`.
        rows: Structure of tensors `[n, ...]`.

    Returns:
        `(result, rows)`. If no example is done, nothing is copied.
    """

    def drop():
        finished, remaining = tf.where(done)[:, 0], tf.where(~done)[:, 0]
        positions, values = gather(finished, index, points)
        updated = tf.tensor_scatter_nd_update(result, positions[:, None], values)
        return updated, take(remaining, rows)

    return tf.cond(tf.reduce_any(done), drop, lambda: (result, rows))


def over_runs(search, x, runs):
    """Does an attack's runs one after the other or several in parallel, with the same results.

    Args:
        search: Callable `(source, number, parallel, result) -> (unbroken, result)`: for every i,
            searches from row `source[i]` of the batch in run `number[i]` and writes its point into
            row i of `result`; `unbroken` are the rows that it does not break. The `parallel` runs
            of an example are adjacent and in order, and those after one that breaks it can stop:
            see `settled`.
        x: float32 tensor `[B, ...]`.
        runs: Number of runs per example.

    Returns:
        float32 tensor `[B, ...]`: the result of the first run that breaks the example, or of the
        last run.
    """
    scaled_rows = _PARALLEL_ROWS * _COORDINATES // math.prod(x.shape[1:])
    max_rows = min(_PARALLEL_ROWS, max(1, scaled_rows))

    def body(run, active, result):
        count = tf.size(active)
        parallel = tf.clip_by_value(max_rows // count, 1, runs - run)
        source = tf.repeat(active, parallel)
        number = run + tf.tile(tf.range(parallel), [count])
        rows, points = search(source, number, parallel, tf.gather(x, source))
        unbroken = tf.scatter_nd(rows[:, None], tf.ones_like(rows), tf.shape(source)) > 0
        broken = ~tf.reshape(unbroken, [count, parallel])
        any_broken = tf.reduce_any(broken, axis=1)
        first = tf.argmax(tf.cast(broken, tf.int32), axis=1, output_type=tf.int32)
        chosen = tf.where(any_broken, first, parallel - 1) + parallel * tf.range(count)
        result = tf.tensor_scatter_nd_update(result, active[:, None], tf.gather(points, chosen))
        return run + parallel, tf.gather(active, tf.where(~any_broken)[:, 0]), result

    return tf.while_loop(
        lambda run, active, _: (run < runs) & (tf.size(active) > 0),
        body,
        (0, tf.range(tf.shape(x)[0]), x),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), x.shape),
        parallel_iterations=1,
    )[2]


def settled(broken, index, parallel):
    """The rows that can stop: the broken ones, and later runs of the same examples.

    Args:
        broken: bool tensor `[n]`.
        index: int tensor `[n]`, ascending; rows with the same `index // parallel` are runs of one
            example, in order.
        parallel: int scalar tensor, the number of runs of an example that are done in parallel.

    Returns:
        bool tensor `[n]`.
    """
    example = index // parallel
    first = tf.math.unsorted_segment_min(
        tf.where(broken, index, index.dtype.max), example, tf.reduce_max(example) + 1
    )
    return index >= tf.gather(first, example)


def evaluate(logits_fn, loss_fn, x):
    """Logits, per-example loss and its input gradient, from one pass.

    NaN coordinates of the gradient count as 0, infinite ones as very steep.

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
    # A single NaN would spread over the image and stop the attack on it: a network could hide
    # behind a square root at 0. Infinite slopes keep their sign, with a finite square.
    slopes = tf.clip_by_value(gradient, -_STEEPEST, _STEEPEST)
    return logits, values, tf.where(tf.math.is_nan(slopes), 0.0, slopes)


def ranked_targets(y, logits, count):
    """The `count` most likely other classes of each example, most likely first, `[B, count]`."""
    label_first = logits + 1e9 * tf.one_hot(y, logits.shape[-1], dtype=logits.dtype)
    return tf.cast(tf.nn.top_k(label_first, count + 1).indices[:, 1:], y.dtype)
