"""CURE: curvature regularization along the gradient's sign."""

import tensorflow as tf

from soar_tf.methods.method import Terms
from soar_tf.methods.regularizer import Regularizer
from soar_tf.ops import gradients, norms
from soar_tf.validation import check_boolean, check_number


class CURE(Regularizer):
    r"""Curvature regularization (Moosavi-Dezfooli et al. 2018, arXiv:1811.09716).

    Minimises $\ell(x) + \lambda R(x)$ per example, where

    $$R(x) = \big\| \nabla\ell(x + z) - \nabla\ell(x) \big\|_2, \qquad
    z = h\, \frac{\mathrm{sign}\nabla\ell(x)}{\|\mathrm{sign}\nabla\ell(x)\|_2},$$

    with z held fixed. The paper's formula has the square of R, its source code R itself: see
    `squared`. The difference is not divided by h. CURE fine-tunes a network from standard training.
    On CIFAR-10 the authors' code raises h from epoch to epoch, which here is
    `h="stairs(0.1, 0.4, 0.8, 1.8, 3)"`.

    BatchNorm and Dropout: the loss is computed in training mode and updates BatchNorm; the penalty
    is computed in inference mode.

    Args:
        lambda_: Weight $\lambda$ of the penalty, at least 0.
        h: Length of z, an l2 distance in units of the pixel range, larger than 0. On 32x32x3
            images h = 3 moves every pixel by 14/255.
        squared: Whether to square the norm.
        penalty_fraction: Share of the batch, in (0, 1], that the penalty is computed on.
        penalty_every: The penalty is computed in every k-th step, and multiplied by k there.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.get("cure").starts_from_standard
    True
    """

    starts_from_standard = True

    def __init__(self, lambda_=4.0, h=3.0, squared=False, penalty_fraction=1.0, penalty_every=1):
        super().__init__(lambda_, penalty_fraction, penalty_every)
        self.h = check_number(h, "h", minimum=0.0, exclusive=True)
        self.squared = check_boolean(squared, "squared")

    def curvature_terms(self, forward, x, y, *, loss_fn, keys):
        values = self.losses_and_logits(forward, y, loss_fn)
        loss, gradient, logits = gradients.input_gradient(values, x, has_aux=True)
        z = self.h * norms.normalize_l2(tf.stop_gradient(tf.sign(gradient)))
        _, moved, _ = gradients.input_gradient(values, x + z, has_aux=True)
        change = norms.flatten(moved - gradient)
        penalty = norms.norm(change, "l2")
        if self.squared:
            penalty = tf.reduce_sum(tf.square(change), axis=1)
        return Terms(loss, logits, penalty, self.lambda_)
