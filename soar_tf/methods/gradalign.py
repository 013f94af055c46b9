"""GradAlign: one-step adversarial training that keeps the input gradient's direction."""

import tensorflow as tf

from soar_tf.attacks.attack import random_start
from soar_tf.methods.one_step import PenalizedStep
from soar_tf.ops import gradients, norms, random


class GradAlign(PenalizedStep):
    r"""Gradient alignment (Andriushchenko and Flammarion 2020, arXiv:2007.02617).

    Minimises $\ell(x', y) + \lambda R(x)$ per example, with $x'$ from one sign step and

    $$R(x) = 1 - \cos\big(\nabla\ell(x),\ \nabla\ell(x + \eta)\big), \qquad
    \eta \sim U(-\epsilon, \epsilon).$$

    A single step finds a strong perturbation only while the gradient keeps its direction inside
    the ball. R asks for that, and as a cosine it cannot be lowered by shrinking gradients. As in
    the authors' code, $\nabla\ell(x)$ is held fixed, and R's gradient flows through the other one.
    R is 0 where a gradient vanishes. $x + \eta$ is cut to the pixel box.

    The authors take $\lambda = 0.2$ at 8/255, 0.632 at 12/255 and 2 at 16/255 on CIFAR-10: it grows
    tenfold with every 8/255.

    BatchNorm and Dropout: the loss, which updates BatchNorm, is taken in training mode, R and $x'$
    in inference mode. From the start `"zero"` the step takes the gradient that R needs anyway.

    Args:
        epsilon: Radius of the linf threat model, in units of the pixel range, in [0, 1].
        lambda_: Weight $\lambda$ of R, at least 0.
        step_size: Length of the step to $x'$, in the same unit, at least 0. Default: `epsilon`;
            from the start `"random"` `1.25 * epsilon`.
        start: Where the step starts: `"zero"` (the image), `"random"` (a uniform point of the
            ball, as `fast`) or `"noise"` (as `n-fgsm`).

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.GradAlign(epsilon="16/255", lambda_=2).second_order
    True
    """

    second_order = True

    def __init__(self, epsilon=8 / 255, lambda_=0.2, step_size=None, start="zero"):
        super().__init__(epsilon, lambda_, step_size, start)

    def slope(self, forward, x, y, *, loss_fn):
        values = self._values(forward, y, loss_fn)
        with forward.unrecorded():
            return tf.stop_gradient(gradients.input_gradient(values, x)[1])

    def penalty(self, forward, x, y, *, loss_fn, keys, slope):
        own_keys = random.derive(keys, "alignment")
        moved = random_start(own_keys, x, self.epsilon, "linf", self.attack.bounds)
        _, free = gradients.input_gradient(self._values(forward, y, loss_fn), moved)
        return 1.0 - norms.cosine(slope, free)

    @staticmethod
    def _values(forward, y, loss_fn):
        return lambda inputs: loss_fn(y, forward.curvature(inputs))
