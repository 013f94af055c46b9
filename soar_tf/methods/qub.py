"""QUB: an upper bound of the loss at the adversarial point, quadratic in the logits."""

from soar_tf.methods import crafting
from soar_tf.methods.method import Method, Terms, optional_number
from soar_tf.methods.trades import check_several_classes
from soar_tf.ops import losses
from soar_tf.validation import check_integer, check_number


class QUB(Method):
    r"""Quadratic upper bound of the adversarial loss (You and Lee 2025, arXiv:2601.13645).

    With the logits z at x and z' at the adversarial point x', and p the softmax of z, minimises

    $$Q = \ell(z, y) + (p - y)^\top (z' - z) + \tfrac14 \|z' - z\|_2^2 \ \ge\ \ell(z', y).$$

    The Hessian of cross-entropy with respect to the logits has no eigenvalue above 1/2, so this
    bounds the loss itself, which SOAR's Taylor expansion does not (see the theory page). It costs
    one more pass and no double backpropagation. Gradients flow through both points. $p - y$ is the
    gradient of the compiled loss, so one-hot labels and label smoothing are taken into account. For
    a loss other than cross-entropy, Q is not a bound.

    With a `share` s below 1, minimises $s\, Q + (1 - s)\, \ell(z', y)$. In the paper's second
    variant the share of the bound decreases: `share="ramp(1, 0, epochs=30)"`.

    BatchNorm and Dropout: as in TRADES, x and x' go through the network in training mode as one
    batch, which updates the moving statistics once. x' is found in inference mode.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        steps: Number of PGD steps to x', at least 1.
        step_size: Length of a step, in the same unit as epsilon. Default: for one linf step
            `epsilon` (`1.25 * epsilon` with `start="random"`), otherwise that of
            `soar_tf.attacks.PGD`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        start: Where the steps start: `"zero"` (the image), `"random"` (a uniform point in the
            ball) or, for one linf step only, `"noise"` (as in `n-fgsm`). Default: `"noise"` for one
            linf step, else `"random"`.
        share: Share s of the bound in the loss, in [0, 1].

    Raises:
        InputError: In training, for a network with a single logit.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.QUB(epsilon="8/255").attack.noise
    2.0
    """

    def __init__(
        self, epsilon=8 / 255, steps=1, step_size=None, norm="linf", start=None, share=1.0
    ):
        self.step_size = optional_number(step_size, "step_size", minimum=0.0)
        self.start = None if start is None or str(start).lower() == "none" else start
        steps = check_integer(steps, "steps", minimum=1)
        start = self.start or ("noise" if steps == 1 and norm == "linf" else "random")
        self.attack = crafting.attack(epsilon, steps, self.step_size, norm, start)
        self.epsilon, self.norm, self.steps = self.attack.epsilon, self.attack.norm, steps
        self.share = check_number(share, "share", minimum=0.0, maximum=1.0)
        self.train_settings = crafting.WATCHED if steps == 1 else {}

    def terms(self, forward, x, y, *, loss_fn, keys):
        x_adv = forward.search(
            lambda: self.attack.perturb(forward.inference, x, y, keys, loss_fn=loss_fn)
        )
        logits, logits_adv = forward.training_pair(x, x_adv)
        check_several_classes(logits)
        bound = losses.quadratic_bound(lambda z: loss_fn(y, z), logits, logits_adv)
        loss = self.share * bound + (1.0 - self.share) * loss_fn(y, logits_adv)
        return Terms(loss, logits_adv)
