"""Carlini and Wagner's attack for the l2 norm."""

import typing

import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.attacks.bisection import Bisection, fooled_finitely
from soar_tf.ops import losses, norms
from soar_tf.validation import check_number

# Pixels at the faces of the box would be at infinity, so they start this far inside (as a share of
# half the box). With the authors' 1e-6 their slope almost vanishes and they barely move at first.
_FACE = 1e-3
# Adam's constants (Kingma and Ba 2014, arXiv:1412.6980), as in the authors' code.
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8


class _State(typing.NamedTuple):
    w: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor
    succeeded: tf.Tensor  # whether this c has found a misclassified point


class CarliniWagner(Bisection):
    r"""Carlini and Wagner's l2 attack (2016, arXiv:1608.04644, section VI.A).

    $$\min_w \|x'(w) - x\|_2^2 + c \cdot \max\Big(z_y - \max_{i \ne y} z_i,\; -\kappa\Big),
      \qquad x'(w) = \tfrac{h + l}{2} + \tfrac{h - l}{2} \tanh w$$

    by Adam from the image, so that points satisfy the box [l, h] automatically; the smallest c that
    succeeds is found by bisection (times 10 until the first success). The search for the nearest
    misclassified point does not depend on the radius: the point counts if it is within `epsilon`;
    otherwise the example is returned unchanged.

    Args:
        epsilon: l2 radius, in the units of `bounds`, within which a point counts.
        norm: `"l2"`.
        steps: Adam steps for each c.
        search_steps: Number of constants c to try.
        learning_rate: Adam's learning rate, in units of w.
        initial_c: First c.
        confidence: $\kappa$, the margin by which a point must be misclassified.
        target: Target class, see `PGD`, but not `"all"`; any misclassification counts.
        early_stop: Whether an example leaves the search at its first point within `epsilon`, which
            makes no difference to robust accuracy; `False` for the smallest distance.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("cw:epsilon=0.5,steps=100").search_steps
    9
    """

    def __init__(
        self,
        epsilon=60 / 255,
        norm="l2",
        steps=1000,
        search_steps=9,
        learning_rate=0.01,
        initial_c=1e-3,
        confidence=0.0,
        target=None,
        early_stop=True,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, steps, search_steps, initial_c, target, early_stop, bounds)
        self.learning_rate = check_number(
            learning_rate, "learning_rate", minimum=0.0, exclusive=True
        )
        self.confidence = check_number(confidence, "confidence", minimum=0.0)

    def _descend(self, logits_fn, result, rows):
        low, high = self.bounds
        middle, half = (high + low) / 2.0, (high - low) / 2.0
        w = tf.atanh(tf.clip_by_value((rows.x - middle) / half, -1.0 + _FACE, 1.0 - _FACE))
        zeros = tf.zeros_like(w)
        state = _State(w, zeros, zeros, tf.zeros_like(rows.y, tf.bool))

        def body(k, result, rows, state):
            # tanh keeps the points in the box up to rounding.
            point = tf.clip_by_value(middle + half * tf.tanh(state.w), low, high)
            fooled, gradient = self._evaluate(logits_fn, rows, point)
            gradient *= half * (1.0 - tf.tanh(state.w) ** 2)
            rows = self._keep_nearest(rows, point, fooled)
            state = state._replace(succeeded=state.succeeded | fooled)
            return self._retire_near(result, rows, self._adam(k, state, gradient))

        result, rows, state = self._loop(body, result, rows, state)
        return result, rows, state.succeeded

    def _evaluate(self, logits_fn, rows, point):
        """Whether the points succeed, and the objective's gradient there."""

        def hinge(logits):
            difference = losses.margin(rows.target, logits)
            difference = -difference if self.target is None else difference
            return tf.maximum(difference, -self.confidence)

        logits, _, gradient = working_set.evaluate(logits_fn, hinge, point)
        gradient = 2.0 * (point - rows.x) + norms.per_example(rows.c, point) * gradient
        fooled = fooled_finitely(rows.y, logits)
        fooled &= losses.margin(rows.y, logits) >= self.confidence
        return fooled, tf.where(tf.math.is_finite(gradient), gradient, 0.0)

    def _adam(self, k, state, gradient):
        mean = _BETA1 * state.mean + (1.0 - _BETA1) * gradient
        square = _BETA2 * state.square + (1.0 - _BETA2) * tf.square(gradient)
        step = tf.cast(k + 1, gradient.dtype)
        unbiased = mean / (1.0 - _BETA1**step)
        scale = tf.sqrt(square / (1.0 - _BETA2**step)) + _TINY
        w = state.w - self.learning_rate * unbiased / scale
        return state._replace(w=w, mean=mean, square=square)
