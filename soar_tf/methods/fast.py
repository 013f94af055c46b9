"""Fast adversarial training: one step from a random start."""

from soar_tf.methods import crafting
from soar_tf.methods.method import Method, Terms, optional_number


class Fast(Method):
    r"""FGSM adversarial training with a random start (Wong et al. 2020, arXiv:2001.03994).

    Minimises $\ell(x + \delta, y)$ with $\delta_0 \sim U(-\epsilon, \epsilon)$ and

    $$\delta = \mathrm{clip}\big(\delta_0 + 1.25\,\epsilon\,
    \mathrm{sign}\nabla\ell(x + \delta_0),\ -\epsilon,\ \epsilon\big),$$

    clipped to the pixel box. The gradient is computed in inference mode; the pass at $x + \delta$
    updates BatchNorm. One-step training can overfit catastrophically: accuracy under FGSM rises
    while accuracy under PGD falls to zero. `soar-tf train` monitors the accuracy under 5-step PGD
    and stops when it falls below half of its best value; in Python, use the callback
    `soar_tf.callbacks.CatastrophicOverfitting`.

    Args:
        epsilon: Radius of the linf threat model, in units of the pixel range, in [0, 1].
        step_size: Length of the step, in the same unit, at least 0. Default: `1.25 * epsilon`.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.Fast(epsilon=0.08).attack.step_size
    0.1
    """

    train_settings = crafting.WATCHED

    def __init__(self, epsilon=8 / 255, step_size=None):
        self.step_size = optional_number(step_size, "step_size", minimum=0.0)
        self.attack = crafting.attack(epsilon, 1, self.step_size, start="random")
        self.epsilon = self.attack.epsilon

    def terms(self, forward, x, y, *, loss_fn, keys):
        x_adv = crafting.point(forward, self.attack, x, y, loss_fn=loss_fn, keys=keys)
        logits = forward.training(x_adv)
        return Terms(loss=loss_fn(y, logits), logits=logits)
