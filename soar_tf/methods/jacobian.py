"""Jacobian regularization: the logits' sensitivity to the input, in random directions."""

import tensorflow as tf

from soar_tf.methods.method import Terms
from soar_tf.methods.regularizer import Regularizer
from soar_tf.ops import gradients, norms, random
from soar_tf.validation import check_integer


class Jacobian(Regularizer):
    r"""Jacobian regularization by random projections (Hoffman et al. 2019, arXiv:1908.02729).

    Minimises $\ell(x) + \lambda R(x)$ per example, where, for the logits $z \in \mathbb R^C$ and
    $v_1, \dots, v_m$ uniform on the unit sphere of $\mathbb R^C$,

    $$R(x) = \frac{C}{2m} \sum_{i=1}^m \Big\| \frac{\partial (v_i^\top z)}{\partial x} \Big\|_2^2,$$

    whose expectation is $\tfrac12 \|\partial z / \partial x\|_F^2$. R does not depend on the label.

    BatchNorm and Dropout: the loss is computed in training mode and updates BatchNorm; the penalty
    is computed in inference mode.

    Args:
        lambda_: Weight $\lambda$ of the penalty, at least 0. The Jacobian is with respect to pixels
            in [0, 1]; for pixels divided by a standard deviation s it would be s times larger.
        num_projections: Number m of random directions, at least 1; each costs a backward pass.
        penalty_fraction: Share of the batch, in (0, 1], that the penalty is computed on.
        penalty_every: The penalty is computed in every k-th step, and multiplied by k there.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.get("jacobian").has_penalty
    True
    """

    def __init__(self, lambda_=0.01, num_projections=1, penalty_fraction=1.0, penalty_every=1):
        super().__init__(lambda_, penalty_fraction, penalty_every)
        self.num_projections = check_integer(num_projections, "num_projections", minimum=1)

    def curvature_terms(self, forward, x, y, *, loss_fn, keys):
        def projected(inputs):
            logits = forward.curvature(inputs)
            directions = random.normal(keys, (self.num_projections, logits.shape[-1]))
            directions /= tf.norm(directions, axis=-1, keepdims=True)
            return tf.einsum("bmc,bc->bm", directions, logits), logits

        _, rows, logits = gradients.input_gradients(projected, x, has_aux=True)
        squares = [tf.reduce_sum(norms.flatten(tf.square(row)), axis=1) for row in rows]
        penalty = 0.5 * logits.shape[-1] / self.num_projections * tf.add_n(squares)
        return Terms(loss_fn(y, logits), logits, penalty, self.lambda_)
