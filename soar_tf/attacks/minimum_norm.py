"""The base of DDN and FMN: a search for the nearest misclassified point in one run."""

import math
import typing

import numpy as np
import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.attacks.attack import Attack, misclassified
from soar_tf.ops import norms, random
from soar_tf.validation import check_boolean, check_integer, check_number


class Rows(typing.NamedTuple):
    """The state of the search for each example."""

    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    keys: tf.Tensor
    point: tf.Tensor
    radius: tf.Tensor  # of the ball for the next point
    best: tf.Tensor  # the nearest misclassified point so far
    best_size: tf.Tensor  # its distance, infinite if there is none yet


class MinimumNorm(Attack):
    """A gradient search in a ball whose radius adapts to each example.

    In each step the point moves along the gradient and is projected onto a ball whose radius
    shrinks if the point is misclassified and grows otherwise. Steps and changes of the radius
    decrease along half a cosine. The search does not depend on `epsilon`: the nearest misclassified
    point counts if it is within `epsilon`; otherwise the example is returned unchanged.

    A subclass defines `_first_radius`, `_loss` and `_next`.
    """

    minimum_norm = True

    def __init__(self, epsilon, norm, steps, gamma, early_stop, bounds):
        super().__init__(epsilon, norm, bounds)
        self.steps = check_integer(steps, "steps", minimum=1)
        self.gamma = check_number(gamma, "gamma", minimum=0.0, maximum=0.9, exclusive=True)
        self.early_stop = check_boolean(early_stop, "early_stop")

    def _first_radius(self, x):
        """The radius before the first step, `[B]`."""
        raise NotImplementedError(f"{type(self).__name__} does not define `_first_radius`.")

    def _loss(self, y, logits):
        """The loss that a step increases, `[B]`."""
        raise NotImplementedError(f"{type(self).__name__} does not define `_loss`.")

    def _next(self, k, rows, fooled, loss, gradient):
        """The rows' next radius and point; `gradient` is that of `_loss`, unscaled."""
        raise NotImplementedError(f"{type(self).__name__} does not define `_next`.")

    def search(self, logits_fn, x, y, keys):
        rows = Rows(
            index=tf.range(tf.shape(x)[0]),
            x=x,
            y=y,
            keys=random.derive(keys, type(self).__name__.lower()),
            point=x,
            radius=self._first_radius(x),
            best=x,
            best_size=tf.zeros_like(y, x.dtype) + np.inf,
        )

        def body(k, result, rows):
            logits, loss, gradient = working_set.evaluate(
                logits_fn, lambda logits: self._loss(rows.y, logits), rows.point
            )
            fooled = misclassified(rows.y, logits)
            rows = self._keep_nearest(rows, fooled)
            result, (rows, fooled, loss, gradient) = self._retire_near(
                result, rows, (rows, fooled, loss, gradient)
            )
            return k + 1, result, self._next(k, rows, fooled, loss, gradient)

        _, result, rows = tf.while_loop(
            lambda k, _, rows: (k < self.steps) & (tf.size(rows.index) > 0),
            body,
            (0, x, rows),
            shape_invariants=(tf.TensorShape([]), x.shape, working_set.open_rows(rows)),
            parallel_iterations=1,
        )
        return self._finish(logits_fn, result, rows)

    def _finish(self, logits_fn, result, rows):
        """Checks the last points, which need no gradient."""

        def check():
            last = self._keep_nearest(rows, misclassified(rows.y, logits_fn(rows.point)))
            near = norms.per_example(last.best_size <= self.epsilon, last.x)
            points = tf.where(near, last.best, last.x)
            return tf.tensor_scatter_nd_update(result, last.index[:, None], points)

        # oneDNN's fused convolutions return a wrong shape for empty batches.
        return tf.cond(tf.size(rows.index) > 0, check, lambda: result)

    def _keep_nearest(self, rows, fooled):
        """Updates each row's nearest misclassified point."""
        size = norms.norm(rows.point - rows.x, self.norm)
        better = fooled & (size < rows.best_size)
        return rows._replace(
            best=tf.where(norms.per_example(better, rows.point), rows.point, rows.best),
            best_size=tf.where(better, size, rows.best_size),
        )

    def _retire_near(self, result, rows, state):
        """With `early_stop`, retires the rows that have a point within `epsilon`."""
        if not self.early_stop:
            return result, state
        near = rows.best_size <= self.epsilon
        return working_set.retire(result, rows.index, rows.best, near, state)

    def _direction(self, k, rows, gradient):
        """The gradient scaled to l2 norm 1, or a random direction if it is zero."""
        flat = norms.norm(gradient, "linf") == 0.0

        def replaced():
            noise = random.normal(random.derive(rows.keys, k), gradient.shape[1:])
            return tf.where(norms.per_example(flat, gradient), noise, gradient)

        chosen = tf.cond(tf.reduce_any(flat), replaced, lambda: gradient)
        return norms.steepest_direction(chosen, "l2")

    def _farthest(self, x):
        """The distance of the farthest corner of the box, `[B]`."""
        low, high = self.bounds
        return norms.norm(tf.maximum(x - low, high - x), self.norm)

    def _cosine(self, k, first, last):
        """A value that decreases from `first` towards `last` along half a cosine."""
        share = 0.5 * (1.0 + tf.cos(math.pi * tf.cast(k, tf.float32) / self.steps))
        return last + (first - last) * share
