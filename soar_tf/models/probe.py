"""One look at what a network does, on a few of the caller's images, before any work begins.

A robust accuracy is worth nothing if the network's outputs are no logits, change from pass to pass
or with the rest of the batch, or if there is no gradient to follow. The last layer's type does not
tell; what comes out does.
"""

import dataclasses
import typing
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models import scales
from soar_tf.ops import losses

SAMPLE = 16
"""Number of images that a probe looks at."""

# Two passes of a deterministic network differ by rounding at most, relative to the outputs' range;
# passes over batches of other sizes, whose kernels may differ, by a little more.
_SAME, _SAME_OTHER_SIZE = 1e-4, 5e-3
# A small step up the gradient raises the loss as the gradient says, to a factor of ten, unless the
# loss is a staircase or the gradient not its own.
_STEP, _FACTOR = 0.25 / 255, 10.0
_TINY = 1e-3
_LEAST_RISE = 1e-5  # below it, float32 losses cannot tell


class Finding(typing.NamedTuple):
    """Something about a network that figures depend on.

    Attributes:
        name: Its short name, such as `"random"`.
        unusable: Whether no figure of such a network means anything.
        message: One sentence: what was seen, on how many images, and what to do.
    """

    name: str
    unusable: bool
    message: str


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        n: Number of images looked at.
        findings: The `Finding`s; none is good.
    """

    n: int
    findings: tuple

    @property
    def names(self):
        """The findings' short names."""
        return tuple(finding.name for finding in self.findings)

    def raise_if_unusable(self, *also):
        """Refuses a network with an unusable finding, or one named in `also`.

        Raises:
            InputError: With the first such finding's sentence.
        """
        for finding in self.findings:
            if finding.unusable or finding.name in also:
                raise InputError(finding.message)


def examine(
    logits_fn: Callable,
    x: np.ndarray,
    y=None,
    *,
    loss_fn: Callable | None = None,
    network=None,
    bounds: tuple = (0.0, 1.0),
    logits: bool = True,
) -> Probe:
    """Looks at a network's outputs and gradients on at most 16 of the images, evenly spread.

    Args:
        logits_fn: Callable `[B, ...] -> [B, C]` in inference mode.
        x: float32 `[N, ...]`, pixels in `bounds`.
        y: Labels `[N]`, or in the form that `loss_fn` takes; `None` leaves out what needs them.
        loss_fn: Per-example loss `(y, logits) -> [B]`. Default: cross-entropy.
        network: The `keras.Model` behind `logits_fn`, if it is one.
        bounds: `(low, high)` of valid pixels.
        logits: Whether the outputs should be logits; otherwise only their dependence on pass and
            batch and their gradients are looked at.

    Returns:
        A `Probe`.

    Raises:
        InputError: If the network fails on the images.

    Example:

    >>> import numpy as np, soar_tf
    >>> from soar_tf.models import probe
    >>> x = np.linspace(0, 1, 8 * 64).reshape(8, 8, 8, 1).astype("float32")
    >>> anew = lambda x: soar_tf.networks.mlp()(x)  # other weights in each pass
    >>> probe.examine(anew, x, np.arange(8)).names
    ('random',)
    """
    rows = np.unique(np.linspace(0, len(x) - 1, SAMPLE).round().astype(int))
    x = tf.constant(np.asarray(x)[rows], tf.float32)
    y = None if y is None else tf.convert_to_tensor(np.asarray(y)[rows])
    findings = [Finding(*finding) for finding in scales.input_findings(network)]
    if findings:
        return Probe(len(rows), tuple(findings))
    outputs = _outputs(logits_fn, x)
    if (finding := _form(outputs)) is not None:
        return Probe(len(rows), (finding,))
    z = outputs.numpy()
    if not np.isfinite(z).all():
        finding = Finding(
            "not_finite", True, "`network` gives NaN or infinite logits for clean images."
        )
        return Probe(len(rows), (finding,))
    if logits:
        findings += _values(z)
    findings += _dependence(logits_fn, x, z)
    if y is not None and not any(finding.unusable for finding in findings):
        findings += _gradients(logits_fn, loss_fn or losses.cross_entropy, x, y, bounds)
        findings += scales.findings(logits_fn, network, x, y, z, bounds)
    return Probe(len(rows), tuple(Finding(*finding) for finding in findings))


def _outputs(logits_fn, x):
    try:
        return logits_fn(x)
    except InputError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines() or [""]
        raise InputError(
            f"`network` fails on {x.shape[0]} images of shape {tuple(x.shape[1:])}: "
            f"{type(error).__name__}: {first[0]}"
        ) from error


def _form(outputs):
    """A finding where outputs are no `[B, C]` of at least two classes."""
    if isinstance(outputs, (dict, list, tuple)):
        return Finding(
            "several_outputs",
            True,
            f"`network` must have one output. Received: a {type(outputs).__name__} of "
            f"{len(outputs)}.",
        )
    shape = tuple(outputs.shape)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return Finding(
            "one_output",
            True,
            f"`network` must give logits [B, C] of at least 2 classes. Received shape {shape}; for "
            "two classes, give the logits [0, z] instead of one.",
        )
    if len(shape) != 2:
        return Finding("shape", True, f"`network` must give logits [B, C]. Received shape {shape}.")
    return None


def _values(z):
    """What the outputs' values say: probabilities, several labels, cut off, few values."""
    count = z.size
    if look_like_probabilities(z):
        yield Finding(
            "probabilities",
            True,
            "`network` must give logits, but its outputs are probabilities (each row sums to 1), "
            "which hide gradients; take off the softmax, for a Keras model with "
            "soar_tf.networks.to_logits.",
        )
        return
    if count >= 20 and z.min() >= 0.0 and z.max() <= 1.0 and np.ptp(z) > 1e-3:
        yield Finding(
            "sigmoid",
            True,
            f"`network` must give one logit per class, but all {count} outputs on {len(z)} images "
            "lie in [0, 1], as a sigmoid's; take off the sigmoid, and give each image one label.",
        )
        return
    if 0 < np.ptp(z) < _TINY:
        yield Finding(
            "tiny",
            False,
            f"The outputs of {len(z)} images differ by {np.ptp(z):.2g} at most: losses hardly tell "
            "classes apart, and slopes are lost in rounding; pass --adaptive.",
        )
    at_limit = int((z == z.max()).sum())
    if at_limit > max(3, len(z) // 4) and np.ptp(z) > 0:
        yield Finding(
            "clipped",
            False,
            f"The outputs of {len(z)} images reach their largest value, {z.max():.4g}, "
            f"{at_limit} times: they are cut off or saturated, and attacks see no slope there; "
            "pass --adaptive.",
        )
    elif count >= 20 and len(np.unique(z)) <= count // 2 and len(np.unique(z, axis=0)) > 1:
        yield Finding(
            "rounded",
            False,
            f"The {count} outputs of {len(z)} images take only {len(np.unique(z))} values: they "
            "are rounded, and attacks see no slope; pass --adaptive.",
        )


def look_like_probabilities(logits):
    """Whether outputs `[B, C]` are probabilities: none negative, and each row sums to 1."""
    return bool(logits.min() >= 0.0 and np.allclose(logits.sum(axis=1), 1.0, atol=1e-3))


def _dependence(logits_fn, x, z):
    """Whether outputs change from pass to pass, or with the rest of the batch."""
    half = max(1, len(z) // 2)
    span = max(float(np.ptp(z)), 1e-30)
    try:
        again = _outputs(logits_fn, x[:half]).numpy()
    except InputError as error:
        yield Finding("fixed_batch", True, f"{error} Batches of any size must be taken.")
        return
    moved = np.abs(again - z[:half]).max(axis=1) / span
    if not (moved > _SAME).any():
        return
    once_more = logits_fn(x[:half]).numpy()
    differing = np.abs(once_more - again).max(axis=1) / span > _SAME
    if differing.any():
        yield Finding(
            "random",
            False,
            f"Two passes over the same images differ on {differing.sum()} of {half}: the network "
            "is random in inference, so every figure is one draw; use layers that heed `training`, "
            "or pass --adaptive, which judges averages over draws.",
        )
    elif (moved > _SAME_OTHER_SIZE).any():
        count = int((moved > _SAME_OTHER_SIZE).sum())
        yield Finding(
            "batch_dependent",
            True,
            f"The outputs of {count} of {half} images change with the rest of their batch: the "
            "network normalises by batch statistics in inference; call its BatchNormalization "
            "layers with training=False, so that figures do not depend on the batch size.",
        )


def _gradients(logits_fn, loss_fn, x, y, bounds):
    """Whether the loss has a gradient, and whether the loss rises along it as it says."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = logits_fn(x)
        loss = loss_fn(y, outputs)
        score = _score(outputs, tf.argmax(outputs, axis=1))
    gradient = tape.gradient(loss, x)
    if gradient is None:
        yield Finding(
            "no_gradient",
            False,
            "The loss has no gradient by the image: something in the network cannot be "
            "differentiated, and gradient attacks would report the clean accuracy; pass "
            "--adaptive, or attack a differentiable copy and transfer.",
        )
        return
    flat = tf.reshape(gradient, [tf.shape(x)[0], -1]).numpy()
    zero = int((np.abs(flat).max(axis=1) == 0).sum())
    if zero == len(flat):
        yield Finding(
            "zero_gradient",
            False,
            f"The loss's gradient by the image is exactly zero for all {zero} images looked at: "
            "gradient attacks would report the clean accuracy; pass --adaptive.",
        )
        return
    # Of a loss that saturates, rounding would leave too little to compare.
    slope = tape.gradient(score, x)
    step = _STEP * (bounds[1] - bounds[0])
    moved = _score(logits_fn(x + step * tf.sign(slope)), tf.argmax(outputs, axis=1))
    risen = (moved - score).numpy()
    expected = step * tf.reduce_sum(tf.abs(tf.reshape(slope, [tf.shape(x)[0], -1])), axis=1).numpy()
    tells = np.isfinite(expected) & (expected > _LEAST_RISE)
    wrong = tells & ~((risen > expected / _FACTOR) & (risen < expected * _FACTOR))
    if tells.sum() >= 8 and wrong.sum() > tells.sum() // 2:
        yield Finding(
            "misleading_gradient",
            False,
            f"On {wrong.sum()} of {tells.sum()} images a small step up the gradient does not "
            "change the outputs as the gradient says: it is rounded away, random or another "
            "function's; pass --adaptive.",
        )
    elif zero > len(flat) // 10:
        yield Finding(
            "zero_gradient",
            False,
            f"The loss's gradient by the image is exactly zero for {zero} of {len(flat)} images: "
            "attacks on the cross-entropy cannot move them; pass --adaptive.",
        )


def _score(outputs, label):
    """How much the best other logit leads the label's, `[B]`, relative to the outputs' range."""
    span = tf.stop_gradient(tf.reduce_max(outputs) - tf.reduce_min(outputs))
    return losses.margin(label, outputs) / tf.maximum(span, 1e-30)
