"""TRADES: the clean loss, and how far the prediction changes inside the ball."""

import tensorflow as tf

from soar_tf.attacks import PGD
from soar_tf.errors import InputError
from soar_tf.methods.method import Method, Terms, optional_number
from soar_tf.models import keras_internals
from soar_tf.ops import losses, projections, random
from soar_tf.validation import check_number


class TRADES(Method):
    r"""TRADES (Zhang et al. 2019, arXiv:1901.08573).

    Minimises

    $$\ell(x, y) + \beta\, \mathrm{KL}\big(p(x) \,\|\, p(\hat x)\big),$$

    where p is the softmax of the logits, and the gradient flows through both points. $\hat x$
    starts at $x + 0.001\,\mathcal N(0, I)$ and takes projected sign steps that increase the same
    divergence, in inference mode and with p(x) held fixed. Neither $\hat x$ nor the divergence
    depends on the label. The steps are computed in float32: in half precision p would be the same
    at the start as at x, and no step would follow.

    BatchNorm and Dropout: x and $\hat x$ go through the network in training mode as a single batch,
    so both are normalised by the same statistics (the divergence is 0 if $\hat x = x$), and the
    moving statistics, which inference uses for both, are updated once, from both.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        beta: Weight $\beta$ of the divergence, at least 0.
        steps: Number of steps to $\hat x$, at least 1.
        step_size: Length of a step, in the same unit as epsilon. Default: `epsilon / 4` for linf
            (the paper's .007 for .031), `2.5 * epsilon / steps` for l2.
        norm: `"linf"`, or `"l2"` (normalised gradient steps).
        start_noise: Standard deviation of the noise at the start, in the same unit, at least 0.
            With 0 the divergence has no gradient, and $\hat x$ stays at x.

    Raises:
        InputError: In training, for a network with a single logit.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.TRADES(epsilon="8/255", beta=6.0).steps
    10
    """

    has_penalty = True

    def __init__(
        self,
        epsilon=8 / 255,
        beta=6.0,
        steps=10,
        step_size=None,
        norm="linf",
        start_noise=0.001,
    ):
        step_size = optional_number(step_size, "step_size", minimum=0.0)
        self.start_noise = check_number(start_noise, "start_noise", minimum=0.0)
        self.attack = _FromNoise(epsilon, norm, steps, step_size)
        self.attack.start_noise = self.start_noise
        self.epsilon, self.norm = self.attack.epsilon, self.attack.norm
        self.steps, self.step_size = self.attack.steps, self.attack.step_size
        self.beta = check_number(beta, "beta", minimum=0.0)

    def terms(self, forward, x, y, *, loss_fn, keys):
        # If both modes are the same function, one pass gives the fixed and the trained p(x).
        shared = not forward.depends_on_training and _computes_in_float32(forward.network)
        logits = forward.training(x) if shared else forward.inference32(x)
        check_several_classes(logits)
        fixed_logits = tf.stop_gradient(logits)
        x_adv = forward.search(
            lambda: self.attack.perturb(
                forward.inference32, x, fixed_logits, keys, loss_fn=losses.kl_divergence
            )
        )
        if shared:
            logits_adv = forward.training(x_adv)
        else:
            logits, logits_adv = forward.training_pair(x, x_adv)
        return Terms(loss_fn(y, logits), logits, *self.penalty(logits, logits_adv))

    def penalty(self, logits, logits_adv):
        """The penalty `[B]` for the logits `[B, C]` at the two points, and its weight."""
        return losses.kl_divergence(logits, logits_adv), self.beta


class _FromNoise(PGD):
    """PGD that starts at x plus Gaussian noise."""

    def start(self, x, keys):
        noisy = x + self.start_noise * random.normal(keys, x.shape[1:])
        return projections.project(noisy, x, self.epsilon, self.norm, self.bounds)


def _computes_in_float32(network):
    return all(layer.compute_dtype == "float32" for layer in keras_internals.layers_of(network))


def check_several_classes(logits):
    """Rejects a single logit, whose softmax is constant: every divergence would be zero."""
    if logits.shape[-1] == 1:
        raise InputError(
            "`network` must have one logit per class, and at least 2 classes, for this method. "
            "Received: 1 logit."
        )
