"""Auto-PGD: projected gradient ascent with an adaptive step size (arXiv:2003.01690)."""

import functools
import typing

import numpy as np
import tensorflow as tf

from soar_tf.attacks import apgd_steps, working_set
from soar_tf.attacks.attack import Attack, gather, misclassified
from soar_tf.errors import InputError
from soar_tf.ops import losses, norms, random
from soar_tf.validation import check_choice, check_integer, check_number

_LOSSES = {"ce": losses.cross_entropy, "dlr": losses.dlr}
_RHO = 0.75


class _Rows(typing.NamedTuple):
    """The state of the search for each example that is not broken yet."""

    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    target: tf.Tensor
    point: tf.Tensor
    best: tf.Tensor
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    memory: tuple  # the state of the step rule


class APGD(Attack):
    r"""Auto-PGD (Croce and Hein 2020, arXiv:2003.01690, algorithm 1).

    $$z = \Pi(x_k + s\,v_k), \qquad
      x_{k+1} = \Pi\big(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})\big)$$

    where $v_k$ is the steepest direction and s is initially 2 epsilon. At each checkpoint an
    example halves its step and returns to its best point if too few steps in the window increased
    the loss, or if the best loss has not improved although the step was not halved last time. An
    example leaves the search at its first misclassified iterate; the others end at their best
    point.

    In l1 (Croce and Hein 2021, arXiv:2103.01208) the steps are sparse and without momentum, the
    projection onto ball and box is exact, and the search starts in balls of 3 and 2 times the
    radius; see `soar_tf.attacks.apgd_steps.Sparse`. Only points within `epsilon` count.

    Args:
        epsilon: Radius, in the units of `bounds`. Default: 12 for l1, else 8/255.
        norm: `"linf"`, `"l2"` or `"l1"`.
        loss: `"ce"` (cross-entropy) or `"dlr"` (difference of logits ratio).
        steps: Number of gradient steps.
        restarts: Number of random starts; later ones only work on examples not yet broken.
        rho: The step is halved unless more than this share of a window's steps increased the loss;
            l1 has no such rule and accepts only the default.
        eot_iter: Number of passes over which a gradient is averaged, for randomised networks.
        bounds: `(low, high)` of valid pixels.

    Raises:
        InputError: If an argument is out of range, or `rho` is set for l1.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("apgd-dlr").loss
    'dlr'
    >>> soar_tf.attacks.get("apgd-ce:norm=l1").epsilon
    12.0
    """

    norms = norms.NAMES
    loss_names = tuple(_LOSSES)

    def __init__(
        self,
        epsilon=None,
        norm="linf",
        loss="ce",
        steps=100,
        restarts=1,
        rho=_RHO,
        eot_iter=1,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, bounds)
        self.loss = check_choice(loss, "loss", self.loss_names)
        self.steps = check_integer(steps, "steps", minimum=1)
        self.restarts = check_integer(restarts, "restarts", minimum=1)
        self.rho = check_number(rho, "rho", minimum=0.0, maximum=1.0)
        if norm == "l1" and self.rho != _RHO:
            raise InputError(
                f"`rho` must be {_RHO} for l1, which never halves its steps. Received: {rho!r}."
            )
        self.eot_iter = check_integer(eot_iter, "eot_iter", minimum=1)

    @functools.cached_property
    def _rule(self):
        return apgd_steps.RULES[self.norm](self)

    def search(self, logits_fn, x, y, keys):
        targets = self._targets(logits_fn, x, y)
        keys = random.derive(keys, f"apgd-{self.loss}")
        runs = self.restarts * targets.shape[1]

        def search(source, number, parallel, result):
            row_x, row_y, row_keys, row_targets = gather(source, x, y, keys, targets)
            target = tf.gather(row_targets, number // self.restarts, axis=1, batch_dims=1)
            run_keys = random.derive(row_keys, number)
            return self._run(logits_fn, result, row_x, row_y, target, run_keys, parallel)

        return working_set.over_runs(search, x, runs)

    def _targets(self, logits_fn, x, y):
        """The target classes, one run each, `[B, T]`; untargeted losses ignore them."""
        return y[:, None]

    def _loss(self, y, target, logits):
        return _LOSSES[self.loss](y, logits)

    def start(self, x, keys):
        """The first point: on the sphere of radius `epsilon`, or for l1 in a wider ball."""
        return self._rule.start(x, keys)

    def _run(self, logits_fn, result, x, y, target, keys, parallel):
        """One run per row, from a random start; see `working_set.over_runs`."""
        point = self.start(x, keys)
        early = self._rule.early_steps(self.steps)
        if early:
            point = self._from_wider_balls(logits_fn, x, y, target, point, early)
        elif self._rule.wider:
            point = self._rule.project(point, x, self.epsilon)
        index = tf.range(tf.shape(x)[0])
        rows = self._first_rows(index, x, y, target, point, self.epsilon)
        steps = self.steps - early * len(self._rule.wider)
        result, rows = self._climb(logits_fn, result, rows, self.epsilon, steps, parallel)
        return self._finish(logits_fn, result, rows)

    def _from_wider_balls(self, logits_fn, x, y, target, point, steps):
        """The start of the search in the ball: the best points of searches in shrinking balls."""
        radii = tf.constant([*self._rule.wider, 1.0], x.dtype) * self.epsilon
        index = tf.range(tf.shape(x)[0])

        def body(j, point):
            rows = self._first_rows(index, x, y, target, point, radii[j])
            _, rows = self._climb(logits_fn, x, rows, radii[j], steps)
            loss = self._loss(y, target, logits_fn(rows.point))
            best = choose(loss > rows.best_loss, rows.point, rows.best)
            return j + 1, tf.ensure_shape(self._rule.project(best, x, radii[j + 1]), x.shape)

        return tf.while_loop(
            lambda j, _: j < len(self._rule.wider), body, (0, point), parallel_iterations=1
        )[1]

    def _climb(self, logits_fn, result, rows, radius, steps, parallel=None):
        """Gradient steps within the ball of this radius.

        Misclassified rows leave the search if `parallel`, the number of runs of an example that
        are done in parallel, is given.
        """
        windows = tf.constant(self._rule.windows(steps))

        def body(k, result, rows):
            logits, loss, gradient = self._evaluate(logits_fn, rows)
            if parallel is not None:
                fooled = misclassified(rows.y, logits)
                done = working_set.settled(fooled, rows.index, parallel)
                result, (rows, loss, gradient) = working_set.retire(
                    result, rows.index, rows.point, done, (rows, loss, gradient)
                )
            return k + 1, result, self._advance(k, windows[k], rows, loss, gradient, radius)

        return tf.while_loop(
            lambda k, _, rows: (k < steps) & (tf.size(rows.index) > 0),
            body,
            (0, result, rows),
            shape_invariants=(tf.TensorShape([]), result.shape, working_set.open_rows(rows)),
            parallel_iterations=1,
        )[1:]

    def _first_rows(self, active, x, y, target, point, radius):
        memory = self._rule.initial(x, point, radius)
        lowest = tf.zeros_like(point[:, *[0] * (len(x.shape) - 1)]) - np.inf
        return _Rows(active, x, y, target, point, point, tf.zeros_like(point), lowest, memory)

    def _evaluate(self, logits_fn, rows):
        """Logits and loss at the rows' points, and the gradient averaged over `eot_iter` passes."""

        def evaluate_once():
            return working_set.evaluate(
                logits_fn, lambda logits: self._loss(rows.y, rows.target, logits), rows.point
            )

        first = evaluate_once()
        if self.eot_iter == 1:
            return first

        def body(k, _, __, total):
            logits, loss, gradient = evaluate_once()
            return k + 1, logits, loss, total + gradient

        _, logits, loss, total = tf.while_loop(
            lambda k, *_: k < self.eot_iter, body, (1, *first), parallel_iterations=1
        )
        return logits, loss, total / self.eot_iter

    def _advance(self, k, window, rows, loss, gradient, radius):
        """Records the loss at the rows' points, handles a checkpoint and takes the next step."""
        improved = loss > rows.best_loss
        rows = rows._replace(
            best=choose(improved, rows.point, rows.best),
            best_gradient=choose(improved, gradient, rows.best_gradient),
            best_loss=tf.maximum(loss, rows.best_loss),
            memory=self._rule.record(rows.memory, loss),
        )

        def reconsider():
            memory, back = self._rule.reconsider(window, rows, radius)
            point = choose(back, rows.best, rows.point)
            checked = rows._replace(memory=memory, point=point)
            return checked, choose(back, rows.best_gradient, gradient)

        rows, gradient = tf.cond(window > 0, reconsider, lambda: (rows, gradient))
        return self._rule.move(k, rows, gradient, radius)

    def _finish(self, logits_fn, result, rows):
        """Checks the last points, which need no gradient; unbroken rows get their best point."""

        def check():
            logits = logits_fn(rows.point)
            fooled = misclassified(rows.y, logits)
            better = fooled | (self._loss(rows.y, rows.target, logits) > rows.best_loss)
            points = tf.where(norms.per_example(better, rows.point), rows.point, rows.best)
            unbroken = tf.gather(rows.index, tf.where(~fooled)[:, 0])
            return unbroken, tf.tensor_scatter_nd_update(result, rows.index[:, None], points)

        # oneDNN's fused convolutions return a wrong shape for empty batches.
        return tf.cond(tf.size(rows.index) > 0, check, lambda: (rows.index, result))


def choose(condition, yes, no):
    """Selects whole examples from one of two tensors by a bool `[n]`."""
    return tf.where(norms.per_example(condition, yes), yes, no)


class APGDT(APGD):
    r"""Targeted APGD: one run per target class on the targeted DLR loss (arXiv:2003.01690).

    The targets are the most likely wrong classes of the clean image, most likely first. With fewer
    classes than `targets`, all other classes are used.

    Args:
        epsilon: Radius, in the units of `bounds`. Default: 12 for l1, else 8/255.
        norm: `"linf"`, `"l2"` or `"l1"`.
        targets: Number of target classes.
        steps: Number of gradient steps per target.
        restarts: Number of random starts per target.
        rho: See `APGD`.
        eot_iter: See `APGD`.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.APGDT(epsilon="8/255", targets=3).targets
    3
    """

    loss_names = ("dlr-t",)

    def __init__(
        self,
        epsilon=None,
        norm="linf",
        targets=9,
        steps=100,
        restarts=1,
        rho=_RHO,
        eot_iter=1,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, "dlr-t", steps, restarts, rho, eot_iter, bounds)
        self.targets = check_integer(targets, "targets", minimum=1)

    def _targets(self, logits_fn, x, y):
        logits = logits_fn(x)
        return working_set.ranked_targets(y, logits, min(self.targets, logits.shape[-1] - 1))

    def _loss(self, y, target, logits):
        return losses.targeted_dlr(y, target, logits)
