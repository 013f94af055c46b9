"""MART: adversarial training that gives misclassified examples more weight."""

import tensorflow as tf

from soar_tf.attacks import PGD
from soar_tf.methods.method import Method, Terms, optional_number
from soar_tf.methods.trades import check_several_classes
from soar_tf.ops import losses
from soar_tf.validation import check_number


class MART(Method):
    r"""Misclassification-aware adversarial training (Wang et al. 2020, ICLR).

    Minimises, with $\hat x$ found by PGD on the loss,

    $$\ell(\hat x, y) - \log\big(1.0001 - \max_{k \ne y} p_k(\hat x)\big)
    + \lambda\, \mathrm{KL}\big(p(x) \,\|\, p(\hat x)\big)\,\big(1 - p_y(x)\big):$$

    a boosted cross-entropy at $\hat x$, and the divergence weighted by one minus the probability of
    the label on the clean example. Gradients flow through every factor. The loss must be a
    classification loss of integer or one-hot labels. (The paper has no arXiv id:
    openreview.net/forum?id=rklOg6EFwS.)

    BatchNorm and Dropout: as in TRADES, x and $\hat x$ go through the network in training mode as
    one batch, which updates the moving statistics once. $\hat x$ is found in inference mode.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        lambda_: Weight $\lambda$ of the divergence, at least 0.
        steps: Number of PGD steps, at least 1.
        step_size: Length of a step, in the same unit as epsilon. Default: `epsilon / 4` for linf,
            `2.5 * epsilon / steps` for l2.
        norm: `"linf"`, `"l2"` or `"l1"`.

    Raises:
        InputError: In training, for a network with a single logit.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.MART(epsilon="8/255").lambda_
    5.0
    """

    has_penalty = True
    takes_mixed_labels = False

    def __init__(self, epsilon=8 / 255, lambda_=5.0, steps=10, step_size=None, norm="linf"):
        step_size = optional_number(step_size, "step_size", minimum=0.0)
        self.attack = PGD(epsilon, norm, steps, step_size)
        self.epsilon, self.norm = self.attack.epsilon, self.attack.norm
        self.steps, self.step_size = self.attack.steps, self.attack.step_size
        self.lambda_ = check_number(lambda_, "lambda_", minimum=0.0)

    def terms(self, forward, x, y, *, loss_fn, keys):
        x_adv = forward.search(
            lambda: self.attack.perturb(forward.inference, x, y, keys, loss_fn=loss_fn)
        )
        logits, logits_adv = forward.training_pair(x, x_adv)
        check_several_classes(logits)
        label = tf.one_hot(losses.class_indices(y, logits), logits.shape[-1])
        p, p_adv = tf.nn.softmax(logits), tf.nn.softmax(logits_adv)
        runner_up = tf.reduce_max(p_adv * (1.0 - label), axis=1)
        loss = loss_fn(y, logits_adv) - tf.math.log(1.0001 - runner_up)
        error_probability = 1.0 - tf.reduce_sum(p * label, axis=1)
        penalty = losses.kl_divergence(logits, logits_adv) * error_probability
        return Terms(loss, logits_adv, penalty, self.lambda_)
