"""GradAlign: one-step adversarial training with aligned input gradients."""

import tensorflow as tf

from soar_tf.attacks.attack import random_start
from soar_tf.methods.one_step import PenalizedStep
from soar_tf.ops import gradients, norms, random


class GradAlign(PenalizedStep):
    r"""Gradient alignment (Andriushchenko and Flammarion 2020, arXiv:2007.02617).

    Minimises $\ell(x', y) + \lambda R(x)$ per example, where $x'$ is found by one sign step and

    $$R(x) = 1 - \cos\big(\nabla\ell(x),\ \nabla\ell(x + \eta)\big), \qquad
    \eta \sim U(-\epsilon, \epsilon).$$

    A single step finds a strong perturbation only as long as the gradient keeps its direction
    inside the ball. R enforces that; being a cosine, it cannot be lowered by shrinking gradients.
    As in the authors' code, $\nabla\ell(x)$ is held fixed and R is differentiated through the other
    gradient. R is 0 where a gradient vanishes. $x + \eta$ is clipped to the pixel box.

    On CIFAR-10 the authors use $\lambda = 0.2$ at 8/255, 0.632 at 12/255 and 2 at 16/255: it grows
    tenfold with every 8/255.

    BatchNorm and Dropout: the loss is computed in training mode and updates BatchNorm; R and $x'$
    are computed in inference mode. With `start="zero"` the step uses the gradient that R needs
    anyway.

    Args:
        epsilon: Radius of the linf threat model, in units of the pixel range, in [0, 1].
        lambda_: Weight $\lambda$ of R, at least 0.
        step_size: Length of the step to $x'$, in the same unit, at least 0. Default: `epsilon`, or
            `1.25 * epsilon` with `start="random"`.
        start: Where the step starts: `"zero"` (the image), `"random"` (a uniform point in the
            ball, as in `fast`) or `"noise"` (as in `n-fgsm`).

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
        derived = random.derive(keys, "alignment")
        moved = random_start(derived, x, self.epsilon, "linf", self.attack.bounds)
        _, gradient = gradients.input_gradient(self._values(forward, y, loss_fn), moved)
        return 1.0 - norms.cosine(slope, gradient)

    @staticmethod
    def _values(forward, y, loss_fn):
        return lambda inputs: loss_fn(y, forward.curvature(inputs))
