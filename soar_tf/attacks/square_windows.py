"""The random proposals of the Square attack (arXiv:1912.00049, algorithms 2 and 3).

All randomness is passed in as uniform numbers, so proposals are pure functions per example.
"""

import numpy as np
import tensorflow as tf

from soar_tf.ops import norms, projections, random

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def halvings(queries):
    """How often the share p of the image has been halved at each query (schedule not rescaled).

    Args:
        queries: Number of queries.

    Returns:
        int32 array `[queries]`.

    Example:

    >>> from soar_tf.attacks.square_windows import halvings
    >>> halvings(60)[[10, 11, 50, 51]].tolist()
    [0, 1, 1, 2]
    """
    return np.searchsorted(HALVINGS, np.arange(queries)).astype(np.int32)


def window_sides(height, width, p_init, smallest=1, odd=False):
    """The side length of the window for each number of halvings of p.

    Args:
        height: Image height in pixels.
        width: Image width in pixels.
        p_init: Initial share of the image's area.
        smallest: Smallest side length.
        odd: Whether side lengths are rounded up to an odd number.

    Returns:
        List of 10 ints, largest first, not yet limited to the image.
    """
    shares = [p_init / 2**count for count in range(len(HALVINGS) + 1)]
    sides = [max(round((share * height * width) ** 0.5), smallest) for share in shares]
    return [side + 1 - side % 2 if odd else side for side in sides]


def bump(side, norm="l2"):
    """The l2 and l1 update: a positive and a negative half, each decreasing from its centre.

    Args:
        side: Side length of the window in pixels.
        norm: `"l2"` or `"l1"`, whose bumps are sharper.

    Returns:
        float32 array `[side, side]` of norm 1.
    """
    if side == 1:
        return np.ones((1, 1), np.float32)
    halves = (_pyramid(side // 2, side, norm), -_pyramid(side - side // 2, side, norm))
    return (np.concatenate(halves) / (2**0.5 if norm == "l2" else 2)).astype(np.float32)


def _pyramid(height, width, norm):
    """At Chebyshev distance d from the centre, the sum of 1/k^p from k = d + 1, normalised.

    p is 2 for l2 and 4 for l1.
    """
    rows = np.abs(np.arange(height) - height // 2)[:, None]
    columns = np.abs(np.arange(width) - width // 2)[None, :]
    power, order = (2, 2) if norm == "l2" else (4, 1)
    terms = 1.0 / np.arange(1, max(height // 2, width // 2) + 2) ** power
    values = np.cumsum(terms[::-1])[::-1][np.maximum(rows, columns)]
    return values / np.linalg.norm(values.ravel(), order)


class LinfProposals:
    """Windows of one colour, starting from vertical stripes.

    Args:
        attack: The `Square` attack.
        shape: `(height, width, channels)` of the images.
    """

    def __init__(self, attack, shape):
        self.epsilon, self.bounds = attack.epsilon, attack.bounds
        self.height, self.width, self.channels = shape
        self.sides = window_sides(self.height, self.width, attack.p_init)
        self.numbers = 2 + self.channels

    def start(self, x, keys):
        """Stripes of `x + epsilon` and `x - epsilon`."""
        noise = random.uniform(random.derive(keys, "start"), (1, self.width, self.channels))
        return tf.clip_by_value(x + self.epsilon * _sign(noise), *self.bounds)

    def propose(self, best, x, noise, stage):
        """Proposes `best` with the pixels of a window moved to a corner of the ball.

        Args:
            best: float32 tensor `[n, H, W, C]`, the best points so far.
            x: float32 tensor `[n, H, W, C]`.
            noise: float32 tensor `[n, numbers]`, uniform in (0, 1).
            stage: int tensor `[n]` or scalar, the number of halvings of p.

        Returns:
            float32 tensor `[n, H, W, C]` inside the ball and the box.
        """
        # Equivalent to the paper's update: add +-2 epsilon and clip to the ball.
        sign = tf.reshape(_sign(noise[:, 2:]), [-1, 1, 1, self.channels])
        moved = tf.clip_by_value(x + self.epsilon * sign, *self.bounds)
        side = tf.gather(self.sides, stage)
        rows = _inside(_offsets(noise[:, 0], self.height, side), side)
        columns = _inside(_offsets(noise[:, 1], self.width, side), side)
        return tf.where((rows[:, :, None] & columns[:, None, :])[..., None], moved, best)


class BumpProposals:
    """Two windows, the first of which takes over the perturbation of the second.

    A subclass defines how a move is measured and projected back onto the ball.

    Args:
        attack: The `Square` attack.
        shape: `(height, width, channels)` of the images.
    """

    norm: str

    def __init__(self, attack, shape):
        self.epsilon, self.bounds = attack.epsilon, attack.bounds
        self.height, self.width, self.channels = shape
        shortest = min(self.height, self.width)
        sides = window_sides(self.height, self.width, attack.p_init, smallest=3, odd=True)
        self.sides = [min(side, shortest) for side in sides]
        self.bumps = np.zeros((len(sides), self.sides[0], self.sides[0]), np.float32)
        for table, side in zip(self.bumps, self.sides, strict=True):
            table[:side, :side] = bump(side, self.norm)
        self.numbers = 5 + self.channels

    def start(self, x, keys):
        """A grid of bumps with random signs and orientations, projected onto the ball."""
        side = max(min(self.height, self.width) // 5, 1)
        tiles = (self.height // side, self.width // side)
        noise = random.uniform(random.derive(keys, "start"), (*tiles, 1 + self.channels))
        noise = tf.repeat(tf.repeat(noise, side, axis=1), side, axis=2)
        vertical = tf.tile(bump(side, self.norm), tiles)[None, :, :, None]
        horizontal = tf.tile(bump(side, self.norm).T, tiles)[None, :, :, None]
        delta = tf.where(noise[..., :1] < 0.5, vertical, horizontal) * _sign(noise[..., 1:])
        missing = (self.height - side * tiles[0], self.width - side * tiles[1])
        paddings = [(total // 2, total - total // 2) for total in missing]
        return self._within(x, tf.pad(delta, [(0, 0), *paddings, (0, 0)]))

    def propose(self, best, x, noise, stage):
        """Proposes to move the perturbation of one window into another; see `LinfProposals`."""
        side = tf.gather(self.sides, stage)
        row, column, row2, column2 = (
            _offsets(noise[:, k], length, side)
            for k, length in enumerate((self.height, self.width) * 2)
        )
        first = _inside(row, side)[:, :, None] & _inside(column, side)[:, None, :]
        second = _inside(row2, side)[:, :, None] & _inside(column2, side)[:, None, :]
        first, second = first[..., None], second[..., None]
        delta = best - x
        size = self._size(delta, first | second)
        old = tf.where(first, delta, 0.0)
        old = old / self._measure(old)
        sign = tf.reshape(_sign(noise[:, 5:]), [-1, 1, 1, self.channels])
        new = old + sign * self._bump(row, column, noise[:, 4], stage)[..., None]
        new = tf.where(first, new, 0.0)
        new *= size / self._measure(new)
        return self._within(x, tf.where(first, new, tf.where(second, 0.0, delta)))

    def _bump(self, row, column, noise, stage):
        """The bump in each example's window, `[n, H, W]`; values outside it are arbitrary."""
        largest = self.sides[0]
        row = tf.clip_by_value(row, 0, largest - 1)[:, :, None]
        column = tf.clip_by_value(column, 0, largest - 1)[:, None, :]
        vertical = (noise < 0.5)[:, None, None]
        index = tf.where(vertical, row * largest + column, column * largest + row)
        table = tf.reshape(stage, [-1, 1, 1]) * largest**2
        return tf.gather(tf.reshape(self.bumps, [-1]), table + index)

    def _size(self, delta, windows):
        """The size of the first window's move in each channel, `[n, 1, 1, C]`."""
        raise NotImplementedError(f"{type(self).__name__} does not define `_size`.")

    def _measure(self, move):
        """The size of a move in each channel, never 0, `[n, 1, 1, C]`."""
        raise NotImplementedError(f"{type(self).__name__} does not define `_measure`.")

    def _within(self, x, delta):
        """The point `x + delta`, projected onto the ball and the box."""
        raise NotImplementedError(f"{type(self).__name__} does not define `_within`.")


class L2Proposals(BumpProposals):
    """Moves of l2 norm `epsilon`; see `BumpProposals`."""

    norm = "l2"

    def _size(self, delta, windows):
        square = tf.square(delta)
        free = tf.maximum(self.epsilon**2 - _total(square, [1, 2, 3]), 0.0) / self.channels
        return tf.sqrt(free + _total(tf.where(windows, square, 0.0), [1, 2]))

    def _measure(self, move):
        return 1e-12 + tf.sqrt(_total(tf.square(move), [1, 2]))

    def _within(self, x, delta):
        scaled = self.epsilon * norms.normalize_l2(delta)
        return tf.clip_by_value(x + scaled, *self.bounds)


class L1Proposals(BumpProposals):
    """Moves in the l1 ball, by exact projection; see `BumpProposals`.

    Each channel of the first window gets the unused radius of the whole image, so a proposal is too
    large by a factor of the number of channels, and the projection makes it sparse, as in the code
    of Croce and Hein 2021, arXiv:2103.01208.
    """

    norm = "l1"

    def _size(self, delta, windows):
        size = tf.abs(delta)
        free = tf.maximum(self.epsilon - _total(size, [1, 2, 3]), 0.0)
        return free + self.channels * _total(tf.where(windows, size, 0.0), [1, 2])

    def _measure(self, move):
        return 1e-12 + _total(tf.abs(move), [1, 2])

    def _within(self, x, delta):
        return projections.project_l1_box(x + delta, x, self.epsilon, self.bounds)


PROPOSALS = {"linf": LinfProposals, "l2": L2Proposals, "l1": L1Proposals}


def _offsets(noise, length, side):
    """Each position relative to the first one of a random window, int32 `[n, length]`."""
    last = tf.maximum(length - side, 0)
    first = tf.cast(noise * tf.cast(last + 1, tf.float32), tf.int32)
    return tf.range(length)[None, :] - tf.minimum(first, last)[:, None]


def _inside(offsets, side):
    return (offsets >= 0) & (offsets < side[..., None])


def _sign(noise):
    return tf.where(noise < 0.5, -1.0, 1.0)


def _total(values, axes):
    return tf.reduce_sum(values, axes, keepdims=True)
