"""ELLE: one-step adversarial training that keeps the loss linear along segments in the ball."""

import tensorflow as tf

from soar_tf.attacks.attack import random_start
from soar_tf.methods.adaptive import JumpRule
from soar_tf.methods.one_step import PenalizedStep
from soar_tf.ops import norms, random
from soar_tf.validation import check_boolean, check_number


class ELLE(PenalizedStep):
    r"""Efficient local linearity (Rocamora et al. 2024, arXiv:2401.11618).

    Minimises $\ell(x', y) + \lambda R(x)$ per example, where $x'$ is found by one sign step and

    $$R(x) = \big(\ell(x_c) - (1 - a)\,\ell(x_a) - a\,\ell(x_b)\big)^2, \qquad
    x_c = (1 - a)\, x_a + a\, x_b,$$

    for uniform points $x_a$ and $x_b$ in the ball and $a \sim U(0, 1)$. A loss that is linear
    inside the ball has R = 0, and one step is enough to maximise it. R takes three forward passes
    and no derivative with respect to the input, so its gradient needs no double backpropagation.
    $x_a$ and $x_b$ are clipped to the pixel box.

    The authors use $\lambda = 1000$ up to 8/255, 5000 from 10/255 to 20/255 and 10000 from 22/255
    on.

    Their adaptive variant, ELLE-A (`adaptive=True`), needs no such table. $\lambda$ starts at 0.
    After each step the batch mean of R is compared with those of all earlier steps: if it exceeds
    their mean by more than `deviations` standard deviations, $\lambda$ becomes `lambda_` (the
    authors use 4000); otherwise it is multiplied by `decay`. The first three steps never count as a
    jump. The weight and the history are part of the model's state: they are saved in checkpoints
    and shared by replicas, and `fit` logs the weight in the last step of each epoch as `lambda_`.

    BatchNorm and Dropout: the loss is computed in training mode and updates BatchNorm; R and $x'$
    are computed in inference mode. R is computed in float32, being the square of a small
    difference.

    Args:
        epsilon: Radius of the linf threat model, in units of the pixel range, in [0, 1].
        lambda_: Weight $\lambda$ of R, at least 0.
        step_size: Length of the step to $x'$, in the same unit, at least 0. Default: `epsilon`, or
            `1.25 * epsilon` with `start="random"`.
        start: Where the step starts: `"zero"` (the image), `"random"` (a uniform point in the
            ball, as in `fast`) or `"noise"` (as in `n-fgsm`).
        adaptive: Whether the weight adapts to R (ELLE-A); `lambda_` is then its largest value.
        decay: Factor in [0, 1] that the adaptive weight is multiplied by after a step without a
            jump.
        deviations: Number of standard deviations above the mean of R that count as a jump, at least
            0; for the adaptive weight.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.ELLE(epsilon="16/255", lambda_=5000).second_order
    False
    """

    def __init__(
        self,
        epsilon=8 / 255,
        lambda_=1000.0,
        step_size=None,
        start="zero",
        adaptive=False,
        decay=0.99,
        deviations=2.0,
    ):
        super().__init__(epsilon, lambda_, step_size, start)
        self.adaptive = check_boolean(adaptive, "adaptive")
        self.decay = check_number(decay, "decay", minimum=0.0, maximum=1.0)
        self.deviations = check_number(deviations, "deviations", minimum=0.0)

    @property
    def weight_rule(self):
        return JumpRule(self.lambda_, self.decay, self.deviations) if self.adaptive else None

    def penalty(self, forward, x, y, *, loss_fn, keys, slope):
        x_a, x_b = (
            random_start(random.derive(keys, end), x, self.epsilon, "linf", self.attack.bounds)
            for end in ("segment_a", "segment_b")
        )
        share = random.uniform(random.derive(keys, "segment_share"), ())
        between = norms.per_example(share, x)
        points = tf.concat([x_a, x_b, (1.0 - between) * x_a + between * x_b], axis=0)
        values = loss_fn(tf.concat([y, y, y], axis=0), forward.inference32(points))
        loss_a, loss_b, loss_c = tf.split(values, 3)
        return tf.square(loss_c - (1.0 - share) * loss_a - share * loss_b)
