"""N-FGSM: one step from a start with noise wider than the ball."""

from soar_tf.methods import crafting
from soar_tf.methods.method import Method, Terms, optional_number
from soar_tf.validation import check_number


class NFGSM(Method):
    r"""Noise-FGSM adversarial training (de Jorge et al. 2022, arXiv:2202.01181).

    Minimises $\ell(x + \delta, y)$ with $\eta \sim U(-k\epsilon, k\epsilon)$ and

    $$\delta = \eta + \alpha\, \mathrm{sign}\nabla\ell(x + \eta).$$

    $x + \eta$ and $x + \delta$ are clipped to the pixel box but not projected onto the ball: the
    noise is an augmentation, and the step is added to it. This prevents catastrophic overfitting
    where `fast` does not, at the same cost. The gradient is computed in inference mode; the pass at
    $x + \delta$ updates BatchNorm. `soar-tf train` still monitors the accuracy under 5-step PGD, as
    for `fast`.

    Args:
        epsilon: Radius of the linf threat model, in units of the pixel range, in [0, 1].
        step_size: Length $\alpha$ of the step, in the same unit, at least 0. Default: `epsilon`.
        noise: Half-width k of the noise, in multiples of `epsilon`, at least 0. With 0 it is FGSM
            from the image itself.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.NFGSM(epsilon=0.1).attack.effective_step_size
    0.1
    """

    train_settings = crafting.WATCHED

    def __init__(self, epsilon=8 / 255, step_size=None, noise=crafting.NOISE):
        self.step_size = optional_number(step_size, "step_size", minimum=0.0)
        self.noise = check_number(noise, "noise", minimum=0.0)
        self.attack = crafting.FromNoise(epsilon, self.step_size, self.noise)
        self.epsilon = self.attack.epsilon

    def terms(self, forward, x, y, *, loss_fn, keys):
        x_adv = crafting.point(forward, self.attack, x, y, loss_fn=loss_fn, keys=keys)
        logits = forward.training(x_adv)
        return Terms(loss=loss_fn(y, logits), logits=logits)
