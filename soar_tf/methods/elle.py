"""ELLE: one-step adversarial training that keeps the loss linear along segments of the ball."""

import tensorflow as tf

from soar_tf.attacks.attack import random_start
from soar_tf.methods import crafting
from soar_tf.methods.method import Method, Terms, optional_number
from soar_tf.ops import norms, random
from soar_tf.validation import check_number


class ELLE(Method):
    r"""Efficient local linearity (Rocamora et al. 2024, arXiv:2401.11618).

    Minimises $\ell(x', y) + \lambda R(x)$ per example, with $x'$ from one sign step and

    $$R(x) = \big(\ell(x_c) - (1 - a)\,\ell(x_a) - a\,\ell(x_b)\big)^2, \qquad
    x_c = (1 - a)\, x_a + a\, x_b,$$

    for uniform points $x_a$ and $x_b$ of the ball and $a \sim U(0, 1)$. A loss that is linear
    inside the ball has R = 0, and one step is enough to maximise it. R takes three passes forward,
    and no derivative by the input, so its gradient needs no double backpropagation. $x_a$ and
    $x_b$ are cut to the pixel box.

    The authors take $\lambda = 1000$ up to 8/255, 5000 from 10/255 to 20/255 and 10000 from 22/255
    on. (Their adaptive form, ELLE-A, raises $\lambda$ when R jumps.)

    BatchNorm and Dropout: the loss, which updates BatchNorm, is taken in training mode, R and $x'$
    in inference mode. R is computed in float32: it is the square of a small difference.

    Args:
        epsilon: Radius of the linf threat model, in units of the pixel range, in [0, 1].
        lambda_: Weight $\lambda$ of R, at least 0.
        step_size: Length of the step to $x'$, in the same unit, at least 0. Default: `epsilon`;
            from the start `"random"` `1.25 * epsilon`.
        start: Where the step starts: `"zero"` (the image), `"random"` (a uniform point of the
            ball, as `fast`) or `"noise"` (as `n-fgsm`).

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.ELLE(epsilon="16/255", lambda_=5000).second_order
    False
    """

    has_penalty = True
    train_settings = crafting.WATCHED

    def __init__(self, epsilon=8 / 255, lambda_=1000.0, step_size=None, start="zero"):
        self.lambda_ = check_number(lambda_, "lambda_", minimum=0.0)
        self.step_size = optional_number(step_size, "step_size", minimum=0.0)
        self.attack = crafting.attack(epsilon, 1, self.step_size, start=start)
        self.epsilon, self.start = self.attack.epsilon, start

    def terms(self, forward, x, y, *, loss_fn, keys):
        x_adv = forward.search(
            lambda: self.attack.perturb(forward.inference, x, y, keys, loss_fn=loss_fn)
        )
        penalty = self.nonlinearity(forward, x, y, loss_fn, keys)
        # The penalty is that of the inference network, before the loss's pass updates it.
        logits = forward.training(x_adv)
        return Terms(loss_fn(y, logits), logits, penalty, self.lambda_)

    def nonlinearity(self, forward, x, y, loss_fn, keys):
        """R at `x`, `[B]`."""
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
