"""How APGD starts and steps in each norm: `Halving` for linf and l2, `Sparse` for l1.

A step rule owns the state of an example between steps (`memory`) and three decisions: when a
checkpoint comes, what happens there, and what the next point is. The search itself, which keeps the
best point and drops broken examples, is the same in all norms (`apgd.py`).
"""

import typing

import numpy as np
import tensorflow as tf

from soar_tf.attacks.attack import random_on_sphere
from soar_tf.ops import norms, projections, random


def checkpoints(steps):
    """The steps after which APGD reconsiders its step size (arXiv:2003.01690, section 3).

    Args:
        steps: Number of gradient steps N.

    Returns:
        List of ints. The first window has 0.22 N steps, and each next one 0.03 N fewer, down to
        0.06 N.

    Example:

    >>> from soar_tf.attacks.apgd_steps import checkpoints
    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    window = max(22 * steps // 100, 1)
    ends = [window]
    while True:
        window = max(window - max(3 * steps // 100, 1), max(6 * steps // 100, 1))
        if ends[-1] + window > steps:
            return ends
        ends.append(ends[-1] + window)


class HalvingMemory(typing.NamedTuple):
    """The state of each example in linf and l2."""

    previous: tf.Tensor  # the point before the current one
    step: tf.Tensor
    last_loss: tf.Tensor
    rises: tf.Tensor  # number of steps since the last checkpoint that increased the loss
    checked_loss: tf.Tensor  # best loss at the last checkpoint
    halved: tf.Tensor  # whether the step was halved at the last checkpoint


class Halving:
    """The steps of linf and l2 (arXiv:2003.01690, algorithm 1).

    Args:
        attack: The `APGD` attack.
    """

    # Multiples of epsilon searched before the ball itself: none.
    wider = ()

    def __init__(self, attack):
        self.norm, self.bounds, self.rho = attack.norm, attack.bounds, attack.rho
        self.epsilon = attack.epsilon

    def early_steps(self, steps):
        """Steps in each wider ball."""
        return 0

    def windows(self, steps):
        """For each step, the length of the window that ends there or 0, int32 `[steps + 1]`."""
        return _windows(steps, checkpoints(steps))

    def start(self, x, keys):
        """A random point on the sphere of radius `epsilon`, clipped to the box."""
        return random_on_sphere(keys, x, self.epsilon, self.norm, self.bounds)

    def initial(self, x, point, radius):
        """The memory at the start of a search in the ball of this radius."""
        zeros = _zeros(point)
        return HalvingMemory(
            previous=point,
            step=zeros + 2.0 * radius,
            last_loss=zeros + np.inf,
            rises=zeros,
            checked_loss=zeros - np.inf,
            halved=tf.ones_like(zeros, tf.bool),
        )

    def record(self, memory, loss):
        """The memory updated with the loss at the current points."""
        rises = memory.rises + tf.cast(loss > memory.last_loss, loss.dtype)
        return memory._replace(last_loss=loss, rises=rises)

    def reconsider(self, window, rows, radius):
        """A checkpoint: the memory after it, and which examples return to their best point."""
        memory = rows.memory
        stuck = ~memory.halved & (memory.checked_loss >= rows.best_loss)
        halve = (memory.rises <= self.rho * tf.cast(window, memory.rises.dtype)) | stuck
        checked = memory._replace(
            step=tf.where(halve, 0.5 * memory.step, memory.step),
            rises=tf.zeros_like(memory.rises),
            checked_loss=rows.best_loss,
            halved=halve,
        )
        return checked, halve

    def move(self, k, rows, gradient, radius):
        """The rows after their next step."""
        momentum = tf.where(k > 0, 0.25, 0.0)
        point = self._step(rows, gradient, radius, momentum)
        return rows._replace(point=point, memory=rows.memory._replace(previous=rows.point))

    def project(self, points, x, radius):
        """The points, projected onto the ball and then the box."""
        return projections.project(points, x, radius, self.norm, self.bounds)

    def _step(self, rows, gradient, radius, momentum):
        z = rows.point + self._ascent(gradient, rows.memory.step)
        z = self.project(z, rows.x, radius)
        # z - m (z - x_k) + m (x_k - x_{k-1}), with fewer passes over the images.
        point = (1.0 - momentum) * z + momentum * (2.0 * rows.point - rows.memory.previous)
        return self.project(point, rows.x, radius)

    def _ascent(self, gradient, step):
        """The steepest step of length `step`."""
        if self.norm == "linf":
            return norms.per_example(step, gradient) * tf.sign(gradient)
        square = tf.reduce_sum(tf.square(norms.flatten(gradient)), axis=1)
        safe = square > 1e-30  # in other rows squares underflow, so they are scaled first
        move = norms.per_example(step * tf.math.rsqrt(tf.where(safe, square, 1.0)), gradient)

        def scaled():
            tiny = norms.steepest_direction(gradient, self.norm)
            tiny *= norms.per_example(step, gradient)
            return tf.where(norms.per_example(safe, gradient), move * gradient, tiny)

        return tf.cond(tf.reduce_all(safe), lambda: move * gradient, scaled)


class SparseMemory(typing.NamedTuple):
    """The state of each example in l1."""

    step: tf.Tensor
    support: tf.Tensor  # number of changed coordinates of the best point at the last checkpoint


class Sparse:
    """The steps of l1 (Croce and Hein 2021, arXiv:2103.01208, algorithm 1).

    A step moves the steepest coordinates equally: two thirds as many as differ at the best point.
    At a checkpoint, an example whose best point has become sparser by more than 5 % returns to it
    and takes full steps again; the others divide their step by 1.5, down to a tenth of the radius.
    The search starts in balls of 3 and 2 times the radius, with 30 % of the steps in each.

    Args:
        attack: The `APGD` attack.
    """

    wider = (3.0, 2.0)
    _SPARSER, _SHRINK, _SMALLEST_STEP = 0.95, 1.5, 0.1

    def __init__(self, attack):
        self.epsilon, self.bounds = attack.epsilon, attack.bounds

    def early_steps(self, steps):
        """Steps in each wider ball; none if no step would be left for the ball itself."""
        return -(-3 * steps // 10) if steps > 2 else 0

    def windows(self, steps):
        """For each step, the length of the window that ends there or 0, int32 `[steps + 1]`."""
        window = max(4 * steps // 100, 1)
        return _windows(steps, range(window, steps + 1, window))

    def start(self, x, keys):
        """The image plus Gaussian noise, projected onto the widest ball and the box."""
        moved = x + random.normal(keys, x.shape[1:])
        return self.project(moved, x, self.wider[0] * self.epsilon)

    def initial(self, x, point, radius):
        """The memory at the start of a search in the ball of this radius."""
        return SparseMemory(_zeros(point) + radius, _support(point, x))

    def record(self, memory, loss):
        """The memory, which does not depend on the loss."""
        return memory

    def reconsider(self, window, rows, radius):
        """A checkpoint: the memory after it, and which examples return to their best point."""
        support = _support(rows.best, rows.x)
        before = tf.cast(rows.memory.support, rows.memory.step.dtype)
        sparser = tf.cast(support, before.dtype) < self._SPARSER * before
        step = tf.maximum(rows.memory.step / self._SHRINK, self._SMALLEST_STEP * radius)
        return SparseMemory(tf.where(sparser, radius, step), support), sparser

    def move(self, k, rows, gradient, radius):
        """The rows after their next step."""
        counts = tf.maximum((2 * rows.memory.support + 2) // 3, 1)
        step = norms.per_example(rows.memory.step, gradient)
        point = rows.point + step * norms.top_direction(gradient, counts)
        return rows._replace(point=self.project(point, rows.x, radius))

    def project(self, points, x, radius):
        """The nearest points in the ball and the box."""
        return projections.project_l1_box(points, x, radius, self.bounds)


RULES = {"linf": Halving, "l2": Halving, "l1": Sparse}


def _zeros(point):
    """A zero per example, `[n]`."""
    return tf.zeros_like(point[:, *[0] * (len(point.shape) - 1)])


def _support(points, x):
    """Number of coordinates that differ from the image, int32 `[n]`."""
    return tf.math.count_nonzero(norms.flatten(points - x), axis=1, dtype=tf.int32)


def _windows(steps, ends):
    lengths = np.zeros(steps + 1, np.int32)
    lengths[list(ends)] = np.diff([0, *ends])
    return lengths
