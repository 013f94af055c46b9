"""FAB: fast adaptive boundary attack, which searches for the nearest misclassified point."""

import typing

import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.attacks.attack import Attack, gather, misclassified, random_on_sphere
from soar_tf.ops import losses, norms, random
from soar_tf.ops.hyperplane import project_onto_hyperplane
from soar_tf.validation import check_integer, check_number

_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


class _Rows(typing.NamedTuple):
    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    target: tf.Tensor
    point: tf.Tensor


class FAB(Attack):
    r"""Fast adaptive boundary attack (Croce and Hein 2020, arXiv:1907.02044), untargeted.

    Each step takes the nearest boundary of the linearised network and the exact projections
    $d_1$, $d_2$ onto it, within the pixel box, of the current and of the clean point:

    $$x_{k+1} = (1 - \alpha)(x_k + \eta d_1) + \alpha (x + \eta d_2), \qquad
      \alpha = \min\Big(\frac{\|d_1\|}{\|d_1\| + \|d_2\|}, \alpha_{max}\Big)$$

    A misclassified iterate is moved back to $x + \beta (x_{k+1} - x)$. The attack minimises the
    distance, so only points within `epsilon` count; an example leaves the search at its first such
    point, and an example without one is returned unchanged.

    Args:
        epsilon: Radius, in the units of `bounds`. Default: 12 for l1, else 8/255.
        norm: `"linf"`, `"l2"` or `"l1"`.
        steps: Number of steps.
        restarts: Number of starts: the first at the image, later ones at random points at half the
            radius.
        alpha_max: Largest share of the clean point's projection.
        eta: Overshoot of the projections.
        beta: Share of the distance kept by a backward step.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.FAB(epsilon=0.5, norm="l2").norm
    'l2'
    """

    norms = norms.NAMES

    def __init__(
        self,
        epsilon=None,
        norm="linf",
        steps=100,
        restarts=1,
        alpha_max=0.1,
        eta=1.05,
        beta=0.9,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, bounds)
        self.steps = check_integer(steps, "steps", minimum=1)
        self.restarts = check_integer(restarts, "restarts", minimum=1)
        self.alpha_max = check_number(alpha_max, "alpha_max", minimum=0.0, maximum=1.0)
        self.eta = check_number(eta, "eta", minimum=1.0)
        self.beta = check_number(beta, "beta", minimum=0.0, maximum=1.0)

    def search(self, logits_fn, x, y, keys):
        targets = self._targets(logits_fn, x, y)
        keys = random.derive(keys, "fab")
        runs = self.restarts * targets.shape[1]

        def search(source, number, parallel, result):
            row_x, row_y, row_keys, row_targets = gather(source, x, y, keys, targets)
            target = tf.gather(row_targets, number // self.restarts, axis=1, batch_dims=1)
            point = self._start(row_x, row_keys, number)
            rows = _Rows(tf.range(tf.size(source)), row_x, row_y, target, point)
            return self._run(logits_fn, result, rows, parallel)

        return working_set.over_runs(search, x, runs)

    def _targets(self, logits_fn, x, y):
        """The targets of each run, `[B, runs, ...]`: here one run with all other classes."""
        logits = logits_fn(x)
        return working_set.ranked_targets(y, logits, logits.shape[-1] - 1)[:, None, :]

    def _start(self, x, keys, number):
        """The start of a run: for the first run per target the image, for others random."""
        if self.restarts == 1:
            return x
        moved = self._random_start(x, random.derive(keys, number))
        return tf.where(norms.per_example(number % self.restarts == 0, x), x, moved)

    def _random_start(self, x, keys):
        return random_on_sphere(keys, x, 0.5 * self.epsilon, self.norm, self.bounds)

    def _run(self, logits_fn, result, rows, parallel):
        """One run per row; see `working_set.over_runs`."""

        def body(k, result, rows):
            difference, gradient = self._linearize(logits_fn, rows)
            point = self._step(rows, difference, gradient)
            fooled = misclassified(rows.y, logits_fn(point))
            near = norms.norm(point - rows.x, self.norm) <= self.epsilon
            done = working_set.settled(fooled & near, rows.index, parallel)
            back = rows.x + self.beta * (point - rows.x)
            next_point = tf.where(norms.per_example(fooled, point), back, point)
            result, rows = working_set.retire(
                result, rows.index, point, done, rows._replace(point=next_point)
            )
            return k + 1, result, rows

        _, result, rows = tf.while_loop(
            lambda k, _, rows: (k < self.steps) & (tf.size(rows.index) > 0),
            body,
            (0, result, rows),
            shape_invariants=(tf.TensorShape([]), result.shape, working_set.open_rows(rows)),
            parallel_iterations=1,
        )
        return rows.index, result

    def _linearize(self, logits_fn, rows):
        """The nearest class boundary at the rows' points: z_t - z_y and its input gradient."""

        def body(k, nearest, difference, gradient):
            value, slope = self._logit_difference(logits_fn, rows, rows.target[:, k])
            distance = tf.abs(value) / (1e-12 + norms.norm(slope, _DUAL[self.norm]))
            closer = distance < nearest
            return (
                k + 1,
                tf.minimum(distance, nearest),
                tf.where(closer, value, difference),
                tf.where(norms.per_example(closer, slope), slope, gradient),
            )

        zeros = tf.zeros_like(rows.y, rows.x.dtype)
        state = (0, zeros + float("inf"), zeros, tf.zeros_like(rows.point))
        *_, difference, gradient = tf.while_loop(
            lambda k, *_: k < rows.target.shape[1], body, state, parallel_iterations=1
        )
        return difference, gradient

    def _logit_difference(self, logits_fn, rows, target):
        """z_t - z_y for the target t, and its input gradient."""

        def difference(logits):
            return losses.label_logit(target, logits) - losses.label_logit(rows.y, logits)

        return working_set.evaluate(logits_fn, difference, rows.point)[1:]

    def _step(self, rows, difference, gradient):
        x, point = rows.x, rows.point
        # The same hyperplane, relative to the current point and to the clean one.
        clean_difference = difference + _inner(gradient, x - point)
        moves = project_onto_hyperplane(
            tf.concat([point, x], axis=0),
            tf.concat([gradient, gradient], axis=0),
            -tf.concat([difference, clean_difference], axis=0),
            self.norm,
            self.bounds,
        )
        sizes = tf.maximum(norms.norm(moves, self.norm), 1e-8)
        move, clean_move = tf.split(moves, 2)
        size, clean_size = tf.split(sizes, 2)
        alpha = norms.per_example(tf.minimum(size / (size + clean_size), self.alpha_max), x)
        mixed = (1.0 - alpha) * (point + self.eta * move) + alpha * (x + self.eta * clean_move)
        return tf.clip_by_value(mixed, *self.bounds)


class FABT(FAB):
    """Targeted FAB: one run per target class, towards the boundary of that class.

    The targets are the `targets` most likely wrong classes of the clean image, most likely first.
    With fewer classes, all other classes are used. See `FAB`.

    Args:
        epsilon: Radius, in the units of `bounds`. Default: 12 for l1, else 8/255.
        norm: `"linf"`, `"l2"` or `"l1"`.
        targets: Number of target classes.
        steps: Number of steps per target.
        restarts: Number of starts per target.
        alpha_max: Largest share of the clean point's projection.
        eta: Overshoot of the projections.
        beta: Share of the distance kept by a backward step.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.FABT(epsilon="8/255", targets=5).targets
    5
    """

    def __init__(
        self,
        epsilon=None,
        norm="linf",
        targets=9,
        steps=100,
        restarts=1,
        alpha_max=0.1,
        eta=1.05,
        beta=0.9,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, steps, restarts, alpha_max, eta, beta, bounds)
        self.targets = check_integer(targets, "targets", minimum=1)

    def _targets(self, logits_fn, x, y):
        logits = logits_fn(x)
        return working_set.ranked_targets(y, logits, min(self.targets, logits.shape[-1] - 1))

    def _linearize(self, logits_fn, rows):
        return self._logit_difference(logits_fn, rows, rows.target)


def _inner(a, b):
    return tf.reduce_sum(norms.flatten(a * b), axis=1)
