"""IKL: TRADES with the two parts of its divergence weighted separately."""

import tensorflow as tf

from soar_tf.methods.trades import TRADES
from soar_tf.ops import losses
from soar_tf.validation import check_boolean, check_number


class IKL(TRADES):
    r"""Improved decoupled Kullback-Leibler divergence (Cui et al. 2023, arXiv:2305.13948).

    With the logits z at x and $\hat z$ at $\hat x$, their softmax p and q, and $[\cdot]$ held
    fixed, minimises

    $$\ell(x, y) + \alpha\, \mathrm{KL}\big([p] \,\|\, q\big)
    + \beta\, \tfrac12 \mathrm{Var}_{[w]}\big(z - \hat z\big), \qquad
    w = \mathrm{softmax}(z / T),$$

    where the variance is over the classes, with weights w. (It equals the authors' weighted square
    $\tfrac14 \sum_{jk} w_j w_k (\Delta z_{jk} - \Delta\hat z_{jk})^2$ of the pairwise differences
    $\Delta z_{jk} = z_j - z_k$, and the divergence their cross-entropy with soft labels up to a
    constant.) For T = 1, $\alpha = \beta$ and $\hat z$ held fixed in the variance
    (`symmetric=False`), its gradient is exactly that of TRADES with that $\beta$: the decoupled
    divergence, DKL. IKL weights the parts separately and differentiates the variance through
    $\hat z$ as well.

    The authors' weights w are the mean predictions for each class over the previous epoch. Methods
    here are stateless, so w is the example's prediction at temperature T: a variant with the
    authors' $\alpha$, $\beta$ and T, which were chosen for their weights.

    $\hat x$, BatchNorm and Dropout are handled as in TRADES.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        alpha: Weight $\alpha$ of the divergence from the fixed p, at least 0.
        beta: Weight $\beta$ of the variance, at least 0.
        temperature: Temperature T of the weights in the variance, larger than 0.
        symmetric: Whether the variance is differentiated through $\hat z$ as well.
        steps: Number of steps to $\hat x$, at least 1.
        step_size: Length of a step, in the same unit as epsilon. Default: `epsilon / 4` for linf,
            `2.5 * epsilon / steps` for l2.
        norm: `"linf"`, or `"l2"` (normalised gradient steps).
        start_noise: Standard deviation of the noise at the start, in the same unit, at least 0; see
            `TRADES`.

    Raises:
        InputError: In training, for a network with a single logit.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.IKL(epsilon="8/255", steps=5).beta
    20.0
    """

    def __init__(
        self,
        epsilon=8 / 255,
        alpha=4.0,
        beta=20.0,
        temperature=4.0,
        symmetric=True,
        steps=10,
        step_size=None,
        norm="linf",
        start_noise=0.001,
    ):
        super().__init__(epsilon, beta, steps, step_size, norm, start_noise)
        self.alpha = check_number(alpha, "alpha", minimum=0.0)
        self.temperature = check_number(temperature, "temperature", minimum=0.0, exclusive=True)
        self.symmetric = check_boolean(symmetric, "symmetric")

    def penalty(self, logits, logits_adv):
        divergence = losses.kl_divergence(tf.stop_gradient(logits), logits_adv)
        weights = tf.nn.softmax(tf.stop_gradient(logits) / self.temperature)
        moved = logits_adv if self.symmetric else tf.stop_gradient(logits_adv)
        variance = losses.weighted_variance(weights, logits - moved)
        return self.alpha * divergence + 0.5 * self.beta * variance, 1.0
