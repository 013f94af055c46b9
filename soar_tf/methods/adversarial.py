"""Adversarial training: the loss at the point found by an attack."""

from soar_tf.attacks import PGD
from soar_tf.methods import crafting
from soar_tf.methods import inner_loss as inner
from soar_tf.methods.method import Method, Terms, optional_number
from soar_tf.validation import check_boolean


class Adversarial(Method):
    r"""PGD adversarial training (Madry et al. 2017, arXiv:1706.06083).

    Minimises $\ell(x', y)$, where $x'$ is found by PGD against the current network in inference
    mode. `steps=7` is Adv7 in the SOAR paper, `steps=1` Adv1.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        steps: Number of PGD steps.
        step_size: Length of a step. Default: `epsilon / 4` for linf (2/255 at 8/255).
        norm: `"linf"`, `"l2"` or `"l1"`.
        random_start: Whether PGD starts at a uniform point in the ball.
        inner_loss: The loss that PGD maximises: `"training"` (the compiled loss),
            `"cross_entropy"`, `"margin"` (largest other logit minus the label's) or `"dlr"` (the
            margin relative to the logits' range, arXiv:2003.01690).

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.Adversarial(epsilon="8/255").steps
    7
    """

    def __init__(
        self,
        epsilon=8 / 255,
        steps=7,
        step_size=None,
        norm="linf",
        random_start=True,
        inner_loss="training",
    ):
        step_size = optional_number(step_size, "step_size", minimum=0.0)
        random_start = check_boolean(random_start, "random_start")
        self.attack = PGD(epsilon, norm, steps, step_size, random_start)
        self.epsilon, self.norm = self.attack.epsilon, self.attack.norm
        self.steps, self.step_size = self.attack.steps, self.attack.step_size
        self.random_start = self.attack.random_start
        self.inner_loss = inner.check(inner_loss, "inner_loss")
        self.takes_mixed_labels = inner.takes_mixed_labels(self.inner_loss)

    def terms(self, forward, x, y, *, loss_fn, keys):
        inner_loss_fn = inner.choose(self.inner_loss, loss_fn)
        x_adv = crafting.point(forward, self.attack, x, y, loss_fn=inner_loss_fn, keys=keys)
        logits = forward.training(x_adv)
        return Terms(loss=loss_fn(y, logits), logits=logits)
