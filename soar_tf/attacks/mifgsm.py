"""MI-FGSM: the momentum iterative fast gradient sign method."""

import tensorflow as tf

from soar_tf.attacks.pgd import PGD
from soar_tf.ops import norms
from soar_tf.validation import check_number


class MIFGSM(PGD):
    r"""Momentum iterative FGSM (Dong et al. 2017, arXiv:1710.06081, algorithm 1).

    $$g_{k+1} = \mu\, g_k + \frac{\nabla\ell(x_k)}{\|\nabla\ell(x_k)\|_1}, \qquad
      x_{k+1} = \Pi\big(x_k + s \cdot \arg\max_{\|v\| \le 1} v^\top g_{k+1}\big)$$

    from $x_0 = x$. Momentum stabilises the direction, so the examples transfer better to other
    networks.

    Args:
        epsilon: Radius, in the units of `bounds`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        steps: Number of gradient steps.
        step_size: Length s of a step in the norm. Default: `epsilon / steps`.
        decay: $\mu$; 0 gives iterative FGSM.
        target: Target class, see `PGD`.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.MIFGSM(epsilon="8/255", decay=1.0).decay
    1.0
    """

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        steps=10,
        step_size=None,
        decay=1.0,
        target=None,
        bounds=(0.0, 1.0),
    ):
        super().__init__(
            epsilon, norm, steps, step_size, random_start=False, target=target, bounds=bounds
        )
        self.decay = check_number(decay, "decay", minimum=0.0)

    @property
    def effective_step_size(self):
        return self.epsilon / self.steps if self.step_size is None else self.step_size

    def memory(self, x):
        return (tf.zeros_like(x),)

    def advance(self, x_adv, x, gradient, memory):
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        # Scaling by the largest entry keeps the l1 norm of tiny gradients from underflowing.
        gradient = _divide(gradient, norms.norm(gradient, "linf"))
        momentum = self.decay * memory[0] + _divide(gradient, norms.norm(gradient, "l1"))
        return self.step(x_adv, x, momentum), (momentum,)


def _divide(gradient, sizes):
    return tf.math.divide_no_nan(gradient, norms.per_example(sizes, gradient))
