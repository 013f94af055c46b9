"""CURE: curvature regularization along the gradient's sign."""

import tensorflow as tf

from soar_tf.errors import check_boolean, check_number
from soar_tf.methods.method import Method, Terms
from soar_tf.ops import gradients, norms


class CURE(Method):
    r"""Curvature regularization (Moosavi-Dezfooli et al. 2018, arXiv:1811.09716).

    Minimises $\ell(x) + \lambda R(x)$ per example, where

    $$R(x) = \big\| \nabla\ell(x + z) - \nabla\ell(x) \big\|_2, \qquad
    z = h\, \frac{\mathrm{sign}\nabla\ell(x)}{\|\mathrm{sign}\nabla\ell(x)\|_2},$$

    with z held fixed. The paper's formula has the square of R, its source code R itself: see
    `squared`. The difference is not divided by h. It fine-tunes a network that was trained in the
    standard way; the source raises h from epoch to epoch (.1, .4, .8, 1.8, 3 on CIFAR-10), which
    takes one run an h here, until a callback for such schedules exists.

    BatchNorm and Dropout: the loss, which updates BatchNorm, is taken in training mode, the
    penalty in inference mode.

    Args:
        lambda_: Weight $\lambda$ of the penalty, at least 0.
        h: Length of z, an l2 distance in units of the pixel range, larger than 0. On 32x32x3
            images h = 3 moves every pixel by 14/255.
        squared: Whether to square the norm.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.get("cure").starts_from_standard
    True
    """

    has_penalty = True
    second_order = True
    starts_from_standard = True

    def __init__(self, lambda_=4.0, h=3.0, squared=False):
        self.lambda_ = check_number(lambda_, "lambda_", minimum=0.0)
        self.h = check_number(h, "h", minimum=0.0, exclusive=True)
        self.squared = check_boolean(squared, "squared")

    def terms(self, forward, x, y, *, loss_fn, keys):
        seen = []

        def values(inputs):
            seen.append(forward.curvature(inputs))
            return loss_fn(y, seen[-1])

        loss, gradient = gradients.input_gradient(values, x)
        z = self.h * norms.normalize_l2(tf.stop_gradient(tf.sign(gradient)))
        _, moved = gradients.input_gradient(values, x + z)
        change = norms.flatten(moved - gradient)
        penalty = norms.norm(change, "l2")
        if self.squared:
            penalty = tf.reduce_sum(tf.square(change), axis=1)
        logits = seen[0]
        if forward.depends_on_training:
            # The curvature is that of the inference network; the loss trains the other one.
            logits = forward.training(x)
            loss = loss_fn(y, logits)
        return Terms(loss, logits, penalty, self.lambda_)
