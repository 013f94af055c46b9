"""The loss around images: along a direction and over a plane."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from soar_tf.attacks import as_logits_fn
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness
from soar_tf.evaluation.per_example import PerExample
from soar_tf.ops import gradients, losses, random
from soar_tf.validation import check_integer, check_number, check_pixels


@dataclasses.dataclass(frozen=True)
class LossSurface:
    """Mean cross-entropy over images, around them.

    Attributes:
        distances: `[P]` steps along either direction, in units of the pixel range; from minus to
            plus the reach.
        losses: `[P, P]`, `losses[j, i]` at `distances[i]` along the signs of each image's gradient
            and `distances[j]` along random signs, in nats.
    """

    distances: np.ndarray
    losses: np.ndarray

    @property
    def along(self):
        """The losses along the gradient's signs alone, `[P]`."""
        return self.losses[len(self.distances) // 2]


def loss_surface(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray,
    *,
    reach=16 / 255,
    points: int = 17,
    seed: int = 0,
    batch_size: int = 256,
) -> LossSurface:
    """Measures the loss on a plane through each image, and averages over the images.

    One axis is the sign of the loss's input gradient, where one FGSM step goes, the other a
    random sign a pixel. Points are clipped to [0, 1]. A surface that bends, or is flat around the
    image and steep behind, is one whose gradients say little about the ball.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        x: float32 `[N, ...]`, pixels in [0, 1].
        y: int `[N]`, labels.
        reach: How far to go in both directions, in units of the pixel range.
        points: Points on each axis, odd, so that the image itself is one.
        seed: Seed of the random signs.
        batch_size: Examples worked on together.

    Returns:
        A `LossSurface`.

    Raises:
        InputError: For arguments that do not fit.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(5)
    >>> surface = soar_tf.evaluation.loss_surface(
    ...     soar_tf.networks.mlp(), digits.float_images(), digits.labels, points=3)
    >>> surface.losses.shape, bool(surface.along[2] > surface.along[1])
    ((3, 3), True)
    """
    x, y = np.asarray(x, np.float32), np.asarray(y)
    check_pixels(x, "x")
    reach = check_number(reach, "reach", minimum=0.0, exclusive=True)
    points = check_integer(points, "points", minimum=3)
    if points % 2 == 0:
        raise InputError(f"`points` must be odd. Received: {points}.")
    logits_fn = as_logits_fn(network)
    predict = robustness.batched(logits_fn, x.shape[1:], batch_size)
    logits = predict(x)
    robustness.check_logits(logits)
    robustness.check_labels(y, len(x), logits.shape[1])

    def directions(x, y, keys):
        def loss(point):
            return losses.cross_entropy(y, logits_fn(point))

        slope = tf.sign(gradients.input_gradient(loss, x)[1])
        return {"first": slope, "second": tf.sign(random.uniform(keys, x.shape[1:], -1.0, 1.0))}

    found = PerExample(directions, seed=seed, purpose="loss surface", batch_size=batch_size)(x, y)
    distances = np.linspace(-reach, reach, points)
    distances[points // 2] = 0.0
    surface = np.empty((points, points))
    for j, up in enumerate(distances):
        for i, across in enumerate(distances):
            moved = x + np.float32(across) * found["first"] + np.float32(up) * found["second"]
            logits = predict(np.clip(moved, 0, 1, dtype=np.float32))
            surface[j, i] = robustness.cross_entropy(logits, y).mean(dtype=np.float64)
    return LossSurface(distances, surface)
