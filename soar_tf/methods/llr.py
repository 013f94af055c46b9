"""Local linearity regularization: how far the loss departs from its tangent inside the ball."""

import tensorflow as tf

from soar_tf.methods.method import Terms
from soar_tf.methods.regularizer import Regularizer
from soar_tf.ops import gradients, norms, projections
from soar_tf.validation import check_choice, check_epsilon, check_integer, check_number

_BOUNDS = (0.0, 1.0)


class LLR(Regularizer):
    r"""Local linearity regularization (Qin et al. 2019, arXiv:1907.02610).

    Minimises $\ell(x) + \lambda R(x)$ per example, where

    $$R(x) = \gamma(\delta) + \mu\, |\delta^\top\nabla\ell(x)|, \qquad
    \gamma(\delta) = |\ell(x + \delta) - \ell(x) - \delta^\top\nabla\ell(x)|,$$

    and $\delta$, held fixed, maximises $\gamma$ inside the ball: it is found by projected Adam
    steps from a uniform random start, in inference mode.

    BatchNorm and Dropout: the loss is computed in training mode and updates BatchNorm; R is
    computed in inference mode.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        lambda_: Weight $\lambda$ of R, at least 0.
        mu: Weight $\mu$ of the gradient term relative to $\gamma$, at least 0.
        steps: Number of Adam steps, at least 1.
        step_size: Adam's learning rate, in units of the pixel range, at least 0.
        norm: `"linf"` or `"l2"`.
        penalty_fraction: Share of the batch, in (0, 1], that the penalty is computed on.
        penalty_every: The penalty is computed in every k-th step, and multiplied by k there.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.LLR(epsilon="4/255", steps=2).steps
    2
    """

    def __init__(
        self,
        epsilon=8 / 255,
        lambda_=4.0,
        mu=0.3,
        steps=10,
        step_size=0.1,
        norm="linf",
        penalty_fraction=1.0,
        penalty_every=1,
    ):
        super().__init__(lambda_, penalty_fraction, penalty_every)
        self.norm = check_choice(norm, "norm", ("linf", "l2"))
        self.epsilon = check_epsilon(epsilon, norm=norm)
        self.mu = check_number(mu, "mu", minimum=0.0)
        self.steps = check_integer(steps, "steps", minimum=1)
        self.step_size = check_number(step_size, "step_size", minimum=0.0)

    def curvature_terms(self, forward, x, y, *, loss_fn, keys):
        values = self.losses_and_logits(forward, y, loss_fn)

        def inference_values(inputs):
            # The distance to the tangent is a small difference, which half precision would lose.
            return loss_fn(y, forward.inference32(inputs))

        loss, gradient, logits = gradients.input_gradient(values, x, has_aux=True)
        start = projections.random_in_ball(keys, x.shape[1:], self.epsilon, self.norm)
        value, slopes = tf.stop_gradient(loss), tf.stop_gradient(gradient)
        with forward.unrecorded():
            delta = self.least_linear(inference_values, x, value, slopes, self.project(start, x))
        slope = tf.reduce_sum(norms.flatten(delta * gradient), axis=1)
        moved, _ = values(x + delta)
        penalty = tf.abs(moved - loss - slope) + self.mu * tf.abs(slope)
        return Terms(loss, logits, penalty, self.lambda_)

    def least_linear(self, values_fn, x, loss, gradient, start):
        r"""The perturbation $\delta$ with the largest $\gamma$ that Adam finds, `[B, ...]`.

        Args:
            values_fn: Per-example loss, callable `[B, ...] -> [B]`.
            x: float tensor `[B, ...]`.
            loss: The loss at `x`, `[B]`.
            gradient: Its gradient at `x`, `[B, ...]`.
            start: The initial perturbation, `[B, ...]`.

        Returns:
            float tensor `[B, ...]` inside the ball and the box, without gradient.
        """

        def nonlinearity(delta):
            tangent = loss + tf.reduce_sum(norms.flatten(delta * gradient), axis=1)
            return tf.abs(values_fn(x + delta) - tangent)

        def body(k, delta, mean, square):
            ascent = gradients.input_gradient(nonlinearity, delta)[1]
            mean = 0.9 * mean + 0.1 * ascent
            square = 0.999 * square + 0.001 * tf.square(ascent)
            count = tf.cast(k + 1, x.dtype)
            step = mean / (1 - 0.9**count) / (tf.sqrt(square / (1 - 0.999**count)) + 1e-8)
            delta = tf.ensure_shape(self.project(delta + self.step_size * step, x), x.shape)
            return k + 1, delta, mean, square

        zero = tf.zeros_like(x)
        _, delta, _, _ = tf.while_loop(
            lambda k, *_: k < self.steps,
            body,
            (0, start, zero, zero),
            maximum_iterations=self.steps,
        )
        return tf.stop_gradient(delta)

    def project(self, delta, x):
        """The perturbation, projected onto the ball and the pixel box."""
        return projections.project(x + delta, x, self.epsilon, self.norm, _BOUNDS) - x
