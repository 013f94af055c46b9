"""Random image transformations without a norm bound: rotation and shift, and noise."""

import math
import typing

import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.attacks.attack import Attack, misclassified
from soar_tf.errors import InputError
from soar_tf.ops import losses, norms, random
from soar_tf.validation import check_bounds, check_choice, check_integer, check_number


class _Rows(typing.NamedTuple):
    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    keys: tf.Tensor
    best: tf.Tensor
    margin: tf.Tensor


class Transformation(Attack):
    """The worst of `samples` random transformations of each image; uses no gradients.

    `norm` and `epsilon` are `None`: only the pixel box bounds the result. A subclass defines
    `transform(x, keys)`.

    Args:
        samples: Number of random draws; the search stops at the first misclassified one.
        bounds: `(low, high)` of valid pixels.
    """

    norms = (None,)
    needs_gradients = False

    def __init__(self, samples=1, bounds=(0.0, 1.0)):
        self.norm = self.epsilon = None
        self.samples = check_integer(samples, "samples", minimum=1)
        self.bounds = check_bounds(bounds)

    def transform(self, x, keys):
        """One random transformation of each image, `[B, ...]`."""
        raise NotImplementedError(f"{type(self).__name__} does not define `transform`.")

    def perturb(self, logits_fn, x, y, keys, *, loss_fn=losses.cross_entropy):
        best, best_values = None, None
        for sample in range(self.samples):
            transformed = self.transform(x, random.derive(keys, sample))
            if self.samples == 1:
                return transformed
            values = loss_fn(y, logits_fn(transformed))
            if best is None:
                best, best_values = transformed, values
            better = values > best_values
            best = tf.where(norms.per_example(better, x), transformed, best)
            best_values = tf.maximum(values, best_values)
        return tf.stop_gradient(best)

    def search(self, logits_fn, x, y, keys):
        if self.samples == 1:
            return self.transform(x, random.derive(keys, 0))

        def body(sample, result, rows):
            transformed = self.transform(rows.x, random.derive(rows.keys, sample))
            logits = logits_fn(transformed)
            margin = losses.margin(rows.y, logits)
            better = norms.per_example(margin > rows.margin, transformed)
            rows = rows._replace(
                best=tf.where(better, transformed, rows.best),
                margin=tf.maximum(margin, rows.margin),
            )
            wrong = misclassified(rows.y, logits)
            return sample + 1, *working_set.retire(result, rows.index, transformed, wrong, rows)

        lowest = tf.zeros_like(y, x.dtype) - float("inf")
        rows = _Rows(tf.range(tf.shape(x)[0]), x, y, keys, x, lowest)
        _, result, rows = tf.while_loop(
            lambda sample, _, rows: (sample < self.samples) & (tf.size(rows.index) > 0),
            body,
            (0, x, rows),
            shape_invariants=(tf.TensorShape([]), x.shape, working_set.open_rows(rows)),
            parallel_iterations=1,
        )
        return tf.tensor_scatter_nd_update(result, rows.index[:, None], rows.best)


# Largest angle in degrees and largest shift as a share of the side (SOAR, appendix D).
_STRENGTHS = {"weak": (10.0, 0.05), "medium": (30.0, 0.1), "strong": (50.0, 0.3)}


class Spatial(Transformation):
    """Random rotation and translation (Engstrom et al. 2017, arXiv:1712.02779).

    Angle and shifts are uniform. Pixels are interpolated bilinearly, and pixels from outside the
    image are black, the lower bound. SOAR's appendix D uses the three strengths.

    Args:
        strength: `"weak"` (10 degrees, 5 % of the side), `"medium"` (30, 10 %) or `"strong"` (50,
            30 %), in both directions.
        samples: Number of random draws, of which the worst counts.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("spatial").norm is None
    True
    """

    def __init__(self, strength="weak", samples=1, bounds=(0.0, 1.0)):
        super().__init__(samples, bounds)
        self.strength = check_choice(strength, "strength", _STRENGTHS)

    def transform(self, x, keys):
        degrees, share = _STRENGTHS[self.strength]
        noise = random.uniform(keys, (3,), -1.0, 1.0)
        angle = noise[:, 0] * degrees * (math.pi / 180.0)
        return rotate_and_shift(x, angle, share * noise[:, 1], share * noise[:, 2], self.bounds)


def rotate_and_shift(x, angle, down, right, bounds):
    """Rotates images about their centre, then shifts them.

    Args:
        x: float32 tensor `[B, H, W, C]` or `[B, H, W]`.
        angle: `[B]`, in radians, clockwise on the screen.
        down: `[B]`, shift as a share of the height.
        right: `[B]`, shift as a share of the width.
        bounds: `(low, high)` of valid pixels; pixels from outside the image are `low`.

    Returns:
        float32 tensor of the shape of `x`.

    Raises:
        InputError: If `x` does not have the shape of images.
    """
    if len(x.shape) not in (3, 4):
        raise InputError(
            f"Spatial attacks need images [B, H, W, C] or [B, H, W]. Received shape {x.shape}."
        )
    height, width = x.shape[1:3]
    middle_y, middle_x = (height - 1) / 2.0, (width - 1) / 2.0
    cos, sin = tf.cos(angle), tf.sin(angle)
    # The rows map an output pixel (column, row) to the input: first the inverse shift, then the
    # inverse rotation about the centre.
    back_x, back_y = -middle_x - right * width, -middle_y - down * height
    zero = tf.zeros_like(angle)
    matrix = tf.stack(
        [
            cos,
            sin,
            cos * back_x + sin * back_y + middle_x,
            -sin,
            cos,
            cos * back_y - sin * back_x + middle_y,
            zero,
            zero,
        ],
        axis=1,
    )
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=x if len(x.shape) == 4 else x[..., None],
        transforms=matrix,
        output_shape=[height, width],
        fill_value=bounds[0],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.clip_by_value(tf.reshape(moved, tf.shape(x)), *bounds)


class GaussianNoise(Transformation):
    """Gaussian noise, clipped to the box: an average case, not an adversary (SOAR, appendix E).

    Args:
        sigma: Standard deviation in units of the pixel range; the appendix uses .05, .1 and .15.
        samples: Number of random draws, of which the worst counts.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.GaussianNoise(sigma=0.1).sigma
    0.1
    """

    def __init__(self, sigma=0.1, samples=1, bounds=(0.0, 1.0)):
        super().__init__(samples, bounds)
        self.sigma = check_number(sigma, "sigma", minimum=0.0)

    def transform(self, x, keys):
        return tf.clip_by_value(x + self.sigma * random.normal(keys, x.shape[1:]), *self.bounds)
