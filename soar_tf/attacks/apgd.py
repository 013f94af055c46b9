"""Auto-PGD: projected gradient ascent that sets its own step size (arXiv:2003.01690)."""

import typing

import numpy as np
import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.attacks.attack import Attack, misclassified
from soar_tf.ops import losses, norms, projections, random
from soar_tf.validation import check_choice, check_integer, check_number

_LOSSES = {"ce": losses.cross_entropy, "dlr": losses.dlr}


def checkpoints(steps):
    """The steps after which APGD reconsiders its step size (arXiv:2003.01690, section 3).

    Args:
        steps: Number of gradient steps N.

    Returns:
        List of ints. The first window is 0.22 N steps long, each next one 0.03 N shorter, down to
        0.06 N.

    Example:

    >>> from soar_tf.attacks.apgd import checkpoints
    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    window = max(22 * steps // 100, 1)
    found = [window]
    while True:
        window = max(window - max(3 * steps // 100, 1), max(6 * steps // 100, 1))
        if found[-1] + window > steps:
            return found
        found.append(found[-1] + window)


class _Rows(typing.NamedTuple):
    """What the search knows of each example that is not broken yet."""

    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    target: tf.Tensor
    point: tf.Tensor
    previous: tf.Tensor
    step: tf.Tensor
    best: tf.Tensor
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    last_loss: tf.Tensor
    rises: tf.Tensor  # how many steps since the last checkpoint raised the loss
    checked_loss: tf.Tensor  # best loss at the last checkpoint
    halved: tf.Tensor  # whether the step was halved there


class APGD(Attack):
    r"""Auto-PGD (Croce and Hein 2020, arXiv:2003.01690, algorithm 1).

    $$z = \Pi(x_k + s\,v_k), \qquad
      x_{k+1} = \Pi\big(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})\big)$$

    with $v_k$ the steepest direction and s = 2 epsilon at first. At each checkpoint an example
    halves its step and goes back to its best point if too few steps of the window raised the
    loss, or if the best loss has not moved although the step was not halved last time. An example
    leaves the search at its first misclassified iterate; the others end at their best point.

    Args:
        epsilon: Radius in units of the pixel range.
        norm: `"linf"` or `"l2"`.
        loss: `"ce"` (cross-entropy) or `"dlr"` (difference of logits ratio).
        steps: Number of gradient steps.
        restarts: Number of random starts; later ones only work on examples not yet broken.
        rho: Halve unless more than this share of a window's steps raised the loss.
        eot_iter: Forward passes over which a gradient is averaged, for networks that are random.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("apgd-dlr").loss
    'dlr'
    """

    loss_names = tuple(_LOSSES)

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        loss="ce",
        steps=100,
        restarts=1,
        rho=0.75,
        eot_iter=1,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, bounds)
        self.loss = check_choice(loss, "loss", self.loss_names)
        self.steps = check_integer(steps, "steps", minimum=1)
        self.restarts = check_integer(restarts, "restarts", minimum=1)
        self.rho = check_number(rho, "rho", minimum=0.0, maximum=1.0)
        self.eot_iter = check_integer(eot_iter, "eot_iter", minimum=1)

    def search(self, logits_fn, x, y, keys):
        targets = self._targets(logits_fn, x, y)
        keys = random.derive(keys, f"apgd-{self.loss}")
        runs = self.restarts * targets.shape[1]

        def body(run, active, result):
            target = tf.gather(targets, run // self.restarts, axis=1)
            run_keys = random.derive(keys, run)
            own = working_set.take(active, (x, y, target, run_keys))
            return run + 1, *self._run(logits_fn, result, active, *own)

        active = tf.range(tf.shape(x)[0])
        _, _, result = tf.while_loop(
            lambda run, active, _: (run < runs) & (tf.size(active) > 0),
            body,
            (0, active, x),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), x.shape),
            parallel_iterations=1,
        )
        return result

    def _targets(self, logits_fn, x, y):
        """The classes to aim at, one run each, `[B, T]`; the untargeted losses ignore theirs."""
        return y[:, None]

    def _loss(self, y, target, logits):
        return _LOSSES[self.loss](y, logits)

    def start(self, x, keys):
        """A random point of the sphere of radius `epsilon`, cut with the box."""
        if self.norm == "linf":
            noise = random.uniform(keys, x.shape[1:], -1.0, 1.0)
        else:
            noise = random.normal(keys, x.shape[1:])
        size = norms.per_example(self.epsilon / norms.norm(noise, self.norm), x)
        return tf.clip_by_value(x + size * noise, *self.bounds)

    def _run(self, logits_fn, result, active, x, y, target, keys):
        """One start against one target; returns the rows still active and the results."""
        rows = self._first_rows(active, x, y, target, self.start(x, keys))
        windows = tf.constant(_windows(self.steps))

        def body(k, result, rows):
            logits, loss, gradient = self._evaluate(logits_fn, rows)
            fooled = misclassified(rows.y, logits)
            result, (rows, loss, gradient) = working_set.retire(
                result, rows.index, rows.point, fooled, (rows, loss, gradient)
            )
            return k + 1, result, self._advance(k, windows[k], rows, loss, gradient)

        _, result, rows = tf.while_loop(
            lambda k, _, rows: (k < self.steps) & (tf.size(rows.index) > 0),
            body,
            (0, result, rows),
            shape_invariants=(tf.TensorShape([]), result.shape, working_set.open_rows(rows)),
            parallel_iterations=1,
        )
        return self._finish(logits_fn, result, rows)

    def _first_rows(self, active, x, y, target, point):
        full = tf.zeros_like(point[:, *[0] * (len(x.shape) - 1)])
        return _Rows(
            index=active, x=x, y=y, target=target, point=point, previous=point,
            step=full + 2.0 * self.epsilon, best=point, best_gradient=tf.zeros_like(point),
            best_loss=full - np.inf, last_loss=full + np.inf, rises=full,
            checked_loss=full - np.inf, halved=tf.ones_like(full, tf.bool),
        )  # fmt: skip

    def _evaluate(self, logits_fn, rows):
        """Logits and loss at the rows' points, and the gradient averaged over `eot_iter` passes."""

        def once():
            return working_set.evaluate(
                logits_fn, lambda logits: self._loss(rows.y, rows.target, logits), rows.point
            )

        first = once()
        if self.eot_iter == 1:
            return first

        def body(k, _, __, total):
            logits, loss, gradient = once()
            return k + 1, logits, loss, total + gradient

        _, logits, loss, total = tf.while_loop(
            lambda k, *_: k < self.eot_iter, body, (1, *first), parallel_iterations=1
        )
        return logits, loss, total / self.eot_iter

    def _advance(self, k, window, rows, loss, gradient):
        """Books the loss at the rows' points, halves steps at a checkpoint, makes the next step."""

        def choose(condition, yes, no):
            return tf.where(norms.per_example(condition, yes), yes, no)

        improved = loss > rows.best_loss
        rises = rows.rises + tf.cast(loss > rows.last_loss, loss.dtype)
        rows = rows._replace(
            best=choose(improved, rows.point, rows.best),
            best_gradient=choose(improved, gradient, rows.best_gradient),
            best_loss=tf.maximum(loss, rows.best_loss),
            last_loss=loss,
            rises=rises,
        )

        def reconsider():
            stuck = ~rows.halved & (rows.checked_loss >= rows.best_loss)
            halve = (rises <= self.rho * tf.cast(window, loss.dtype)) | stuck
            checked = rows._replace(
                step=tf.where(halve, 0.5 * rows.step, rows.step),
                point=choose(halve, rows.best, rows.point),
                rises=tf.zeros_like(rises),
                checked_loss=rows.best_loss,
                halved=halve,
            )
            return checked, choose(halve, rows.best_gradient, gradient)

        rows, gradient = tf.cond(window > 0, reconsider, lambda: (rows, gradient))
        momentum = tf.where(k > 0, 0.25, 0.0)
        return rows._replace(point=self._step(rows, gradient, momentum), previous=rows.point)

    def _step(self, rows, gradient, momentum):
        z = rows.point + self._ascent(gradient, rows.step)
        z = projections.project(z, rows.x, self.epsilon, self.norm, self.bounds)
        # z - m (z - x_k) + m (x_k - x_{k-1}), written with fewer passes over the images.
        point = (1.0 - momentum) * z + momentum * (2.0 * rows.point - rows.previous)
        return projections.project(point, rows.x, self.epsilon, self.norm, self.bounds)

    def _ascent(self, gradient, step):
        """The steepest move of length `step`."""
        if self.norm == "linf":
            return norms.per_example(step, gradient) * tf.sign(gradient)
        square = tf.reduce_sum(tf.square(norms.flatten(gradient)), axis=1)
        safe = square > 1e-30  # below, squares underflow; such rows are scaled first
        move = norms.per_example(step * tf.math.rsqrt(tf.where(safe, square, 1.0)), gradient)

        def scaled():
            tiny = norms.steepest_direction(gradient, self.norm)
            tiny *= norms.per_example(step, gradient)
            return tf.where(norms.per_example(safe, gradient), move * gradient, tiny)

        return tf.cond(tf.reduce_all(safe), lambda: move * gradient, scaled)

    def _finish(self, logits_fn, result, rows):
        """Checks the last points, which need no gradient; the unbroken return their best point."""

        def check():
            logits = logits_fn(rows.point)
            fooled = misclassified(rows.y, logits)
            better = fooled | (self._loss(rows.y, rows.target, logits) > rows.best_loss)
            points = tf.where(norms.per_example(better, rows.point), rows.point, rows.best)
            left = tf.gather(rows.index, tf.where(~fooled)[:, 0])
            return left, tf.tensor_scatter_nd_update(result, rows.index[:, None], points)

        # oneDNN's fused convolutions give empty batches a wrong shape.
        return tf.cond(tf.size(rows.index) > 0, check, lambda: (rows.index, result))


def _windows(steps):
    """For each step, the length of the window that ends there, or 0: int32 `[steps + 1]`."""
    lengths = np.zeros(steps + 1, np.int32)
    ends = checkpoints(steps)
    lengths[ends] = np.diff([0, *ends])
    return lengths


class APGDT(APGD):
    r"""Targeted APGD: one run per target class on the targeted DLR loss (arXiv:2003.01690).

    The targets are the most likely wrong classes of the clean image, most likely first; with fewer
    classes, all the others.

    Args:
        epsilon: Radius in units of the pixel range.
        norm: `"linf"` or `"l2"`.
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
        self, epsilon=8 / 255, norm="linf", targets=9, steps=100, restarts=1, rho=0.75, eot_iter=1,
        bounds=(0.0, 1.0),
    ):  # fmt: skip
        super().__init__(epsilon, norm, "dlr-t", steps, restarts, rho, eot_iter, bounds)
        self.targets = check_integer(targets, "targets", minimum=1)

    def _targets(self, logits_fn, x, y):
        logits = logits_fn(x)
        return working_set.ranked_targets(y, logits, min(self.targets, logits.shape[-1] - 1))

    def _loss(self, y, target, logits):
        return losses.targeted_dlr(y, target, logits)
