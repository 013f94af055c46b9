"""The base of C&W and L-BFGS: bisection of the constant that balances distance and loss."""

import typing

import tensorflow as tf

from soar_tf.attacks import targets, working_set
from soar_tf.attacks.attack import Attack, misclassified
from soar_tf.ops import norms
from soar_tf.validation import check_boolean, check_integer, check_number

_LARGEST = 1e10  # a constant c that was never too large


class Rows(typing.NamedTuple):
    """The state of the search for each example."""

    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    target: tf.Tensor  # target class, or the label without a target
    c: tf.Tensor
    low: tf.Tensor  # largest c that failed
    high: tf.Tensor  # smallest c that succeeded
    best: tf.Tensor  # the nearest misclassified point so far
    best_size: tf.Tensor


class Bisection(Attack):
    r"""A minimum-norm l2 attack that minimises $\|x' - x\|_2^2 + c\,f(x')$ for several c.

    For each example, c is multiplied by 10 until a misclassified point is found, and bisected from
    then on. A subclass defines `_descend`. The search does not depend on the radius: the nearest
    misclassified point counts if it is within `epsilon`; otherwise the example is returned
    unchanged.
    """

    norms = ("l2",)
    minimum_norm = True

    def __init__(self, epsilon, norm, steps, search_steps, initial_c, target, early_stop, bounds):
        super().__init__(epsilon, norm, bounds)
        self.steps = check_integer(steps, "steps", minimum=1)
        self.search_steps = check_integer(search_steps, "search_steps", minimum=1)
        self.initial_c = check_number(initial_c, "initial_c", minimum=0.0, exclusive=True)
        self.target = targets.check_target(target, [n for n in targets.NAMES if n != "all"])
        self.early_stop = check_boolean(early_stop, "early_stop")

    def _descend(self, logits_fn, result, rows):
        """Minimises the objective with each row's c, starting at the image.

        Returns:
            `(result, rows, succeeded)`: `succeeded` tells whether each row's c has led to a
            misclassified point.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `_descend`.")

    def search(self, logits_fn, x, y, keys):
        target = y
        if self.target is not None:
            target = targets.choose(self.target, logits_fn, x, y, keys)[:, 0]
        zeros = tf.zeros_like(y, x.dtype)
        rows = Rows(
            index=tf.range(tf.shape(x)[0]),
            x=x,
            y=y,
            target=target,
            c=zeros + self.initial_c,
            low=zeros,
            high=zeros + _LARGEST,
            best=x,
            best_size=zeros + float("inf"),
        )

        def body(k, result, rows):
            result, rows, succeeded = self._descend(logits_fn, result, rows)
            high = tf.where(succeeded, tf.minimum(rows.high, rows.c), rows.high)
            low = tf.where(succeeded, rows.low, tf.maximum(rows.low, rows.c))
            c = tf.where(high < _LARGEST, 0.5 * (low + high), 10.0 * rows.c)
            return k + 1, result, rows._replace(low=low, high=high, c=c)

        _, result, rows = tf.while_loop(
            lambda k, _, rows: (k < self.search_steps) & (tf.size(rows.index) > 0),
            body,
            (0, x, rows),
            shape_invariants=(tf.TensorShape([]), x.shape, working_set.open_rows(rows)),
            parallel_iterations=1,
        )
        near = norms.per_example(rows.best_size <= self.epsilon, rows.x)
        points = tf.where(near, rows.best, rows.x)
        return tf.tensor_scatter_nd_update(result, rows.index[:, None], points)

    def _loop(self, body, result, rows, state):
        """Runs `body(k, result, rows, state)` `steps` times, while there are rows."""
        return tf.while_loop(
            lambda k, _, rows, __: (k < self.steps) & (tf.size(rows.index) > 0),
            lambda k, *rest: (k + 1, *body(k, *rest)),
            (0, result, rows, state),
            shape_invariants=(
                tf.TensorShape([]),
                result.shape,
                working_set.open_rows(rows),
                working_set.open_rows(state),
            ),
            parallel_iterations=1,
        )[1:]

    def _keep_nearest(self, rows, points, fooled):
        """Updates each row's nearest misclassified point."""
        size = norms.norm(points - rows.x, "l2")
        better = fooled & (size < rows.best_size)
        return rows._replace(
            best=tf.where(norms.per_example(better, points), points, rows.best),
            best_size=tf.where(better, size, rows.best_size),
        )

    def _retire_near(self, result, rows, state):
        """With `early_stop`, retires the rows that have a point within `epsilon`."""
        if not self.early_stop:
            return result, rows, state
        near = rows.best_size <= self.epsilon
        result, (rows, state) = working_set.retire(
            result, rows.index, rows.best, near, (rows, state)
        )
        return result, rows, state


def fooled_finitely(y, logits):
    """Whether each example is misclassified with finite logits."""
    return misclassified(y, logits) & tf.reduce_all(tf.math.is_finite(logits), axis=1)
