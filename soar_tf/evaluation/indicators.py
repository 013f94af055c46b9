"""Why an attack failed, image by image: a robust network, or an attack that went wrong?

Pintor et al. 2022 (arXiv:2106.09947) look at the path of an attack that fails. Each indicator here
names one way in which the path shows that the optimisation, not the network, is to blame.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from soar_tf.attacks import PGD, as_logits_fn, working_set
from soar_tf.attacks import get as get_attack
from soar_tf.attacks.attack import misclassified
from soar_tf.datasets.images import floats
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness
from soar_tf.evaluation.per_example import PerExample
from soar_tf.ops import losses, projections, random
from soar_tf.validation import check_pixels

# The last steps must not raise the loss by more than this share of all that the path covers.
STILL_RISING = 0.05
LAST_STEPS = 10
# A step without a gradient goes nowhere; an attack of which most steps do so has not been one.
ZERO_STEPS = 0.5
# Random points of the ball may move the loss by this share of what the attack gains. In d pixels a
# random direction does about .7 / sqrt(d) of what the gradient's does: .09 for 64 pixels.
NOISE = 0.5
DRAWS = 20  # random points of the ball

_SENTENCES = {
    "zero_gradient": "more than half of the steps had a gradient that is zero or not finite, so "
    "the attack stood still",
    "noisy_loss": "the loss at random points of the ball varies as much as the attack gains, so "
    "gradients say nothing about it",
    "loss_falls": "the loss ended below where the attack began, so its steps point the wrong way",
    "not_converged": "the last steps still raised the loss, so more steps would go further",
    "silent_success": "an earlier step was misclassified and the last one is not, so the attack "
    "found an adversarial example and lost it (evaluations keep it)",
}


@dataclasses.dataclass(frozen=True)
class AttackIndicators:
    """What the paths of an attack's runs say; every array is bool `[N]`, one entry per image.

    An indicator can only be set where the attack failed: where the image is classified correctly
    and so is the attack's last step.

    Attributes:
        attack: The attack as it was asked for.
        failed: Whether the attack failed on a correctly classified image.
        zero_gradient: Whether more than half of its steps had a zero or non-finite gradient.
        noisy_loss: Whether the loss at random points of the ball varies as much as the attack
            gains.
        loss_falls: Whether the loss at the last step is below that at the first.
        not_converged: Whether the last 10 steps (or half of them) still raised the loss by more
            than 5 % of the range that it covered.
        silent_success: Whether an earlier step was misclassified.
    """

    attack: str
    failed: np.ndarray = dataclasses.field(repr=False)
    zero_gradient: np.ndarray = dataclasses.field(repr=False)
    noisy_loss: np.ndarray = dataclasses.field(repr=False)
    loss_falls: np.ndarray = dataclasses.field(repr=False)
    not_converged: np.ndarray = dataclasses.field(repr=False)
    silent_success: np.ndarray = dataclasses.field(repr=False)

    def columns(self):
        """The indicators as a dictionary of arrays `[N]`."""
        return {name: getattr(self, name) for name in _SENTENCES}

    def lines(self):
        """One line of text per indicator."""
        failed = int(self.failed.sum())
        return [
            f"{int(flags.sum())} of the {failed} images that {self.attack} does not break: "
            f"{_SENTENCES[name]}."
            for name, flags in self.columns().items()
        ]

    def to_dict(self):
        """The indicators, JSON-serializable, with the positions of the images."""
        return {
            "attack": self.attack,
            "n": len(self.failed),
            "failed": int(self.failed.sum()),
            "indicators": [
                {"name": name, "images": np.flatnonzero(flags).tolist(), "sentence": sentence}
                for (name, flags), sentence in zip(
                    self.columns().items(), self.lines(), strict=True
                )
            ],
        }


def attack_indicators(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray,
    attack="pgd20",
    *,
    seed: int = 0,
    batch_size: int = 256,
) -> AttackIndicators:
    """Follows PGD step by step and says, for each image on which it fails, what went wrong.

    Where an indicator is set, the image may well be breakable by an attack that avoids the failure:
    another loss, a smooth stand-in for a layer, averaging over draws, more steps. Where none is
    set, the attack did what it can do.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        x: float32 `[N, ...]`, pixels in [0, 1].
        y: int `[N]`, labels.
        attack: A `PGD` without target, or its name.
        seed: Seed of the attack's noise.
        batch_size: Images worked on together.

    Returns:
        An `AttackIndicators`.

    Raises:
        InputError: For another attack, or data that do not fit.

    Reference:
        Pintor et al. 2022, arXiv:2106.09947. Transfer and unbounded attacks, their other two
        indicators, are checks of `masking_report`.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(20)
    >>> found = soar_tf.evaluation.attack_indicators(
    ...     soar_tf.networks.mlp(), digits.float_images(), digits.labels, "pgd5:epsilon=0.01")
    >>> int(found.zero_gradient.sum()), bool((found.not_converged <= found.failed).all())
    (0, True)
    """
    name = robustness.attack_name(attack)
    attack = get_attack(attack)
    if not isinstance(attack, PGD) or attack.target is not None:
        raise InputError(f"`attack` must be PGD without a target. Received: {attack!r}.")
    robustness.check_pixel_range(name, attack)
    x, y = floats(x), np.asarray(y)
    check_pixels(x, "x")
    logits_fn = as_logits_fn(network)
    predict = robustness.batched(logits_fn, x.shape[1:], batch_size)
    clean = robustness.answers(predict, x, y, batch_size).correct
    return examine(
        attack,
        name,
        logits_fn,
        x,
        y,
        clean,
        seed=seed,
        batch_size=batch_size,
    )


def examine(attack, name, logits_fn, x, y, clean, *, seed, batch_size):
    """`attack_indicators` of checked data; `clean` says which images are classified correctly."""

    def paths(x, y, keys):
        followed = _path(attack, logits_fn, x, y, random.derive(keys, 0))
        return followed | {"drawn": _drawn(attack, logits_fn, x, y, keys)}

    follow = PerExample(paths, seed=seed, purpose="attack", batch_size=batch_size)
    return _judged(name, clean, **follow(x, y))


def _path(attack, logits_fn, x, y, keys):
    """The losses and outcomes of all iterates `[B, steps + 1]` and dead steps `[B, steps]`."""

    def looked(point):
        logits, values, gradient = working_set.evaluate(
            logits_fn, lambda logits: losses.cross_entropy(y, logits), point
        )
        largest = tf.reduce_max(tf.abs(tf.reshape(gradient, [tf.shape(x)[0], -1])), axis=1)
        return gradient, (values, misclassified(y, logits), largest == 0)

    def body(k, point, memory, records):
        gradient, found = looked(point)
        records = [record.write(k, values) for record, values in zip(records, found, strict=True)]
        point, memory = attack.advance(point, x, gradient, memory)
        return k + 1, tf.ensure_shape(point, x.shape), memory, records

    records = [
        tf.TensorArray(dtype, attack.steps + 1, element_shape=[None])
        for dtype in (tf.float32, tf.bool, tf.bool)
    ]
    state = (0, attack.start(x, keys), attack.memory(x), records)
    _, point, _, records = tf.while_loop(lambda k, *_: k < attack.steps, body, state)
    _, found = looked(point)
    loss, wrong, dead = (
        tf.transpose(record.write(attack.steps, values).stack())
        for record, values in zip(records, found, strict=True)
    )
    return {"loss": loss, "wrong": wrong, "dead": dead[:, :-1]}


def _drawn(attack, logits_fn, x, y, keys):
    """The losses at random points of the ball, `[B, DRAWS]`."""

    def loss(draw):
        own = random.derive(random.derive(keys, "indicators"), draw)
        noise = projections.random_in_ball(own, x.shape[1:], attack.epsilon, attack.norm)
        return losses.cross_entropy(y, logits_fn(tf.clip_by_value(x + noise, *attack.bounds)))

    return tf.transpose(tf.map_fn(loss, tf.range(DRAWS), fn_output_signature=tf.float32))


def _judged(name, clean, *, loss, wrong, dead, drawn):
    """The indicators from the paths; arrays `[N, steps + 1]`, `dead` `[N, steps]`."""
    steps = dead.shape[1]
    failed = clean & ~wrong[:, -1]
    stuck = dead.mean(axis=1) > ZERO_STEPS
    with np.errstate(invalid="ignore"):  # infinite losses give NaN, which is above nothing
        best = np.fmax.accumulate(loss, axis=1)
        late = best[:, -1] - best[:, -1 - min(LAST_STEPS, steps // 2)]
        gained = np.abs(loss[:, (steps + 1) // 2 :].mean(axis=1) - drawn.mean(axis=1))
        noisy = drawn.std(axis=1) > NOISE * gained
        rising = late > STILL_RISING * (best[:, -1] - loss.min(axis=1))
        falling = loss[:, -1] < loss[:, 0]
    return AttackIndicators(
        attack=name,
        failed=failed,
        zero_gradient=failed & stuck,
        noisy_loss=failed & noisy & ~stuck,
        loss_falls=failed & falling & ~stuck,
        not_converged=failed & rising & ~stuck,
        silent_success=failed & wrong.any(axis=1),
    )
