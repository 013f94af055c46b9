"""Gradient regularization: the first-order growth of the loss inside the ball."""

import tensorflow as tf

from soar_tf.methods.method import Terms
from soar_tf.methods.regularizer import Regularizer
from soar_tf.ops import gradients, norms
from soar_tf.validation import check_choice, check_epsilon, check_number

MODES = ("double_backprop", "finite_difference")
_DUAL = {"linf": "l1", "l2": "l2"}


class GradientNorm(Regularizer):
    r"""Input gradient regularization, first-order adversarial training (arXiv:1802.01421).

    To first order, the loss grows inside the ball by at most $\epsilon\|\nabla\ell(x)\|_q$, where q
    is the dual norm. Minimises $\ell(x) + \lambda R(x)$ per example, where R is

    $$\epsilon\, \|\nabla\ell(x)\|_q \quad\text{or}\quad
    \frac12 \Big( \epsilon\, \frac{\ell(x + h v) - \ell(x)}{h} \Big)^2, \qquad
    v = \arg\max_{\|v\| \le 1} v^\top\nabla\ell(x),$$

    The second, with v held fixed, is half the square of the first without a second derivative
    (Finlay and Oberman 2019, arXiv:1905.11468): it costs one more pass and no double
    backpropagation. In the units of the literature (no epsilon in R) the weight is
    $\lambda\epsilon$ or $\lambda\epsilon^2$.

    BatchNorm and Dropout: the loss is computed in training mode and updates BatchNorm; the penalty
    is computed in inference mode.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        lambda_: Weight $\lambda$ of the penalty, at least 0.
        norm: Norm of the threat model: `"linf"` (penalises the gradient's l1 norm) or `"l2"`.
        mode: `"double_backprop"` (the first form) or `"finite_difference"` (the second).
        h: Step of the finite difference, a distance in the threat model's norm, in units of the
            pixel range, larger than 0.
        penalty_fraction: Share of the batch, in (0, 1], that the penalty is computed on.
        penalty_every: The penalty is computed in every k-th step, and multiplied by k there.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.get("gradient-norm").has_penalty
    True
    """

    def __init__(
        self,
        epsilon=8 / 255,
        lambda_=1.0,
        norm="linf",
        mode="double_backprop",
        h=0.01,
        penalty_fraction=1.0,
        penalty_every=1,
    ):
        super().__init__(lambda_, penalty_fraction, penalty_every)
        self.norm = check_choice(norm, "norm", _DUAL)
        self.epsilon = check_epsilon(epsilon, norm=norm)
        self.mode = check_choice(mode, "mode", MODES)
        self.h = check_number(h, "h", minimum=0.0, exclusive=True)
        self.second_order = mode == "double_backprop"

    def curvature_terms(self, forward, x, y, *, loss_fn, keys):
        values = self.losses_and_logits(forward, y, loss_fn)
        loss, gradient, logits = gradients.input_gradient(values, x, has_aux=True)
        if self.mode == "double_backprop":
            penalty = self.epsilon * norms.norm(gradient, _DUAL[self.norm])
        else:
            direction = tf.stop_gradient(norms.steepest_direction(gradient, self.norm))
            moved, _ = values(x + self.h * direction)
            growth = self.epsilon * (moved - loss) / self.h
            penalty = 0.5 * tf.square(growth)
        return Terms(loss, logits, penalty, self.lambda_)
