"""FMN: a minimum-norm attack for every norm, with a ball that adapts to the boundary."""

import numpy as np
import tensorflow as tf

from soar_tf.attacks.minimum_norm import MinimumNorm
from soar_tf.ops import losses, norms, projections
from soar_tf.validation import check_number

_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
# The final step and gamma as shares of the initial ones, as in the authors' code.
_LAST_STEP, _LAST_GAMMA = 0.01, 0.02


class FMN(MinimumNorm):
    r"""Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827, algorithm 1).

    $$x_{k+1} = \Pi_{\epsilon_k}\Big(x_k + \alpha_k \frac{\nabla m(x_k)}{\|\nabla m(x_k)\|_2}\Big)$$

    where m is the margin (largest other logit minus the label's) and $\Pi$ projects onto the ball
    of radius $\epsilon_k$, then onto the pixel box. Until the first misclassified point is found,
    the radius is $(1 + \gamma_k) (\|\delta_k\| + |m| / \|\nabla m\|_*)$, which with the dual norm
    estimates the distance of the linearised boundary. From then on it shrinks by a share $\gamma_k$
    if the point is misclassified, to at most the best distance, and grows by that share otherwise.
    Steps decrease from 1 to 0.01 and $\gamma$ from 0.05 to 0.001 along half a cosine. The paper
    has no factor $1 + \gamma_k$ in the first estimate: the points would then approach a straight
    boundary without ever crossing it.

    The search for the nearest misclassified point does not depend on the radius: the point counts
    if it is within `epsilon`; otherwise the example is returned unchanged.

    Args:
        epsilon: Radius, in the units of `bounds`, within which a point counts. Default: 12 for
            l1, else 8/255.
        norm: `"linf"`, `"l2"` or `"l1"`.
        steps: Number of gradient steps.
        step_size: l2 length $\alpha_0$ of the first step, for every norm; the last one is 1 % of
            it.
        gamma: First share $\gamma_0$ by which the radius changes; the last one is 2 % of it.
        early_stop: Whether an example leaves the search at its first point within `epsilon`, which
            makes no difference to robust accuracy; `False` for the smallest distance.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("fmn:norm=l1").epsilon
    12.0
    """

    norms = norms.NAMES

    def __init__(
        self,
        epsilon=None,
        norm="linf",
        steps=100,
        step_size=1.0,
        gamma=0.05,
        early_stop=True,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, steps, gamma, early_stop, bounds)
        self.step_size = check_number(step_size, "step_size", minimum=0.0, exclusive=True)

    def _first_radius(self, x):
        return tf.fill(tf.shape(x)[:1], tf.constant(np.inf, x.dtype))

    def _loss(self, y, logits):
        return losses.margin(y, logits)

    def _next(self, k, rows, fooled, loss, gradient):
        radius = tf.minimum(self._radius(k, rows, fooled, loss, gradient), self._farthest(rows.x))
        step = self._cosine(k, self.step_size, _LAST_STEP * self.step_size)
        moved = rows.point + step * self._direction(k, rows, gradient)
        point = projections.project(moved, rows.x, radius, self.norm, self.bounds)
        return rows._replace(point=point, radius=radius)

    def _radius(self, k, rows, fooled, loss, gradient):
        gamma = self._cosine(k, self.gamma, _LAST_GAMMA * self.gamma)
        slope = norms.norm(gradient, _DUAL[self.norm])
        distance = tf.where(slope > 0.0, tf.abs(loss) / slope, np.inf)
        estimate = norms.norm(rows.point - rows.x, self.norm) + distance
        has_best = tf.math.is_finite(rows.best_size)
        larger = (1.0 + gamma) * tf.where(has_best, rows.radius, estimate)
        return tf.where(fooled, tf.minimum(rows.radius * (1.0 - gamma), rows.best_size), larger)
