"""DDN: a minimum-norm l2 attack that decouples the direction and norm of the perturbation."""

import tensorflow as tf

from soar_tf.attacks.minimum_norm import MinimumNorm
from soar_tf.ops import losses, norms
from soar_tf.validation import check_number

# Lengths of the first and the last step (section 3 of the paper).
_FIRST_STEP, _LAST_STEP = 1.0, 0.01


class DDN(MinimumNorm):
    r"""Decoupled direction and norm (Rony et al. 2018, arXiv:1811.09600, algorithm 1).

    $$\rho_{k+1} = \rho_k\,(1 \mp \gamma), \qquad
      \tilde\delta = \delta_k + \alpha_k \frac{g}{\|g\|_2}, \qquad
      \delta_{k+1} = \rho_{k+1} \frac{\tilde\delta}{\|\tilde\delta\|_2}$$

    clipped to the pixel box, where g is the gradient of the cross-entropy. The length $\rho$
    shrinks if the point is misclassified and grows otherwise; the steps $\alpha_k$ decrease from 1
    to 0.01 along half a cosine. The paper also rounds points to 8 bits; this attack does not, see
    `uint8` of `soar_tf.evaluate`.

    The search for the nearest misclassified point does not depend on the radius: the point counts
    if it is within `epsilon`; otherwise the example is returned unchanged.

    Args:
        epsilon: l2 radius, in the units of `bounds`, within which a point counts.
        norm: `"l2"`.
        steps: Number of gradient steps.
        initial_norm: Initial length $\rho$.
        gamma: Share by which the length changes in each step.
        early_stop: Whether an example leaves the search at its first point within `epsilon`, which
            makes no difference to robust accuracy; `False` for the smallest distance.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("ddn:epsilon=0.5").steps
    100
    """

    norms = ("l2",)

    def __init__(
        self,
        epsilon=60 / 255,
        norm="l2",
        steps=100,
        initial_norm=1.0,
        gamma=0.05,
        early_stop=True,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, steps, gamma, early_stop, bounds)
        self.initial_norm = check_number(initial_norm, "initial_norm", minimum=0.0, exclusive=True)

    def _first_radius(self, x):
        return tf.fill(tf.shape(x)[:1], tf.constant(self.initial_norm, x.dtype))

    def _loss(self, y, logits):
        return losses.cross_entropy(y, logits)

    def _next(self, k, rows, fooled, loss, gradient):
        radius = rows.radius * tf.where(fooled, 1.0 - self.gamma, 1.0 + self.gamma)
        radius = tf.minimum(radius, self._farthest(rows.x))
        step = self._cosine(k, _FIRST_STEP, _LAST_STEP)
        move = rows.point - rows.x + step * self._direction(k, rows, gradient)
        move = norms.normalize_l2(move) * norms.per_example(radius, move)
        point = tf.clip_by_value(rows.x + move, *self.bounds)
        return rows._replace(point=point, radius=radius)
