"""One-step adversarial training with a penalty that keeps the single step strong."""

from soar_tf.methods import crafting
from soar_tf.methods.method import Method, Terms, optional_number
from soar_tf.validation import check_number


class PenalizedStep(Method):
    r"""Minimises $\ell(x', y) + \lambda R(x)$, where $x'$ is found by one sign step.

    A subclass implements `penalty`. The loss is computed in training mode and updates BatchNorm; R
    and $x'$ are computed in inference mode.

    Args:
        epsilon: Radius of the linf threat model, in units of the pixel range, in [0, 1].
        lambda_: Weight $\lambda$ of R, at least 0.
        step_size: Length of the step to $x'$, in the same unit, at least 0, or `None`.
        start: Where the step starts: `"zero"`, `"random"` or `"noise"`.
    """

    has_penalty = True
    train_settings = crafting.WATCHED

    def __init__(self, epsilon, lambda_, step_size, start):
        self.lambda_ = check_number(lambda_, "lambda_", minimum=0.0)
        self.step_size = optional_number(step_size, "step_size", minimum=0.0)
        self.attack = crafting.attack(epsilon, 1, self.step_size, start=start)
        self.epsilon, self.start = self.attack.epsilon, start

    def slope(self, forward, x, y, *, loss_fn):
        """The loss's gradient at `x`, `[B, ...]`, held fixed; `None` if R does not need it."""
        return None

    def penalty(self, forward, x, y, *, loss_fn, keys, slope):
        """R at `x`, `[B]`.

        Args:
            forward: The `Forward`, see `Method.terms`.
            x: `[B, ...]`, the images.
            y: Labels, in the form that `loss_fn` takes.
            loss_fn: The per-example loss.
            keys: The examples' noise keys.
            slope: The result of `slope`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `penalty`.")

    def terms(self, forward, x, y, *, loss_fn, keys):
        slope = self.slope(forward, x, y, loss_fn=loss_fn)
        x_adv = crafting.point(
            forward,
            self.attack,
            x,
            y,
            loss_fn=loss_fn,
            keys=keys,
            slope=slope if self.start == "zero" else None,
        )
        penalty = self.penalty(forward, x, y, loss_fn=loss_fn, keys=keys, slope=slope)
        # The penalty is that of the inference network before the loss's pass updates it.
        logits = forward.training(x_adv)
        return Terms(loss_fn(y, logits), logits, penalty, self.lambda_)
