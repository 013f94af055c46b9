"""The points that methods train on: one or more steps from one of three starting points."""

import types

import tensorflow as tf

from soar_tf.attacks import PGD
from soar_tf.errors import InputError
from soar_tf.ops import gradients, random
from soar_tf.validation import check_choice

# "zero": the image itself; "random": a uniform point in the ball; "noise": N-FGSM's wider start.
STARTS = ("zero", "random", "noise")
# Half-width of the "noise" start, in multiples of the radius (arXiv:2202.01181).
NOISE = 2.0
# One-step methods can lose all robustness within an epoch, so `soar-tf train` watches them.
WATCHED = types.MappingProxyType({"validation_attack": "pgd5", "stop_below": 0.5})


class FromNoise(PGD):
    """One sign step from a noisy start, never projected onto the ball.

    Only the pixel box bounds the result, so it may be up to `noise * epsilon` plus a step away
    from the image. N-FGSM (arXiv:2202.01181) trains on these points. Do not use it for evaluation.

    Args:
        epsilon: Radius of the linf threat model, in units of the pixel range.
        step_size: Length of the step, in the same unit. Default: `epsilon`.
        noise: Half-width of the uniform noise at the start, in multiples of `epsilon`.
    """

    def __init__(self, epsilon, step_size=None, noise=NOISE):
        super().__init__(epsilon, "linf", 1, step_size)
        self.noise = noise

    @property
    def effective_step_size(self):
        return self.epsilon if self.step_size is None else self.step_size

    def start(self, x, keys):
        width = self.noise * self.epsilon
        return tf.clip_by_value(x + random.uniform(keys, x.shape[1:], -width, width), *self.bounds)

    def step(self, x_adv, x, gradient):
        moved = x_adv + self.effective_step_size * tf.sign(gradient)
        return tf.clip_by_value(moved, *self.bounds)


def attack(epsilon, steps=1, step_size=None, norm="linf", start="random"):
    """The attack that crafts a method's points.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        steps: Number of steps, at least 1.
        step_size: Length of a step, in the same unit. Default: for one linf step, the papers' step
            from that start (`1.25 * epsilon` from `"random"`, else `epsilon`); otherwise PGD's
            default.
        norm: `"linf"`, `"l2"` or `"l1"`.
        start: One of `STARTS`.

    Returns:
        A `soar_tf.attacks.PGD`.

    Raises:
        InputError: For an unknown start, or `"noise"` with several steps or another norm.
    """
    check_choice(start, "start", STARTS)
    if start == "noise":
        if steps != 1 or norm != "linf":
            raise InputError(
                "`start` 'noise' needs a single step and the linf norm. "
                f"Received: steps={steps}, norm={norm!r}."
            )
        return FromNoise(epsilon, step_size)
    pgd = PGD(epsilon, norm, steps, step_size, start == "random")
    if step_size is None and pgd.steps == 1 and norm == "linf":
        pgd.step_size = (1.25 if start == "random" else 1.0) * pgd.epsilon
    return pgd


def point(forward, attack, x, y, *, loss_fn, keys, slope=None):
    """The point that a method trains on, found by an attack.

    If the train step logs gradient alignment, the gradient that a single step follows is passed to
    `forward.watch`; see `soar_tf.RobustModel.log_alignment`.

    Args:
        forward: The `Forward`, see `Method.terms`.
        attack: A `soar_tf.attacks.PGD`.
        x: `[B, ...]`, the images.
        y: Labels, in the form that `loss_fn` takes.
        loss_fn: The per-example loss that the attack maximises.
        keys: uint32 tensor `[B, 2]`, the examples' noise keys.
        slope: The loss's gradient at `x`, `[B, ...]`, for a step that starts there; `None` to
            compute it.

    Returns:
        float32 tensor `[B, ...]`, without gradient.
    """

    def step():
        start, gradient = x, slope
        if gradient is None:
            start = attack.start(x, random.derive(keys, 0))
            _, gradient = gradients.input_gradient(
                lambda z: loss_fn(y, forward.inference(z)), start
            )
        return tf.stop_gradient(attack.advance(start, x, gradient, ())[0]), gradient

    if forward.watches and attack.steps == 1 and attack.restarts == 1:
        x_adv, gradient = forward.search(step, count=2)
        forward.watch(x_adv, gradient)
        return x_adv
    if slope is not None:
        return forward.search(lambda: step()[0])
    return forward.search(lambda: attack.perturb(forward.inference, x, y, keys, loss_fn=loss_fn))
