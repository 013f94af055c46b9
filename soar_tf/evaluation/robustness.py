"""What every measurement shares: compiled prediction, and the checks of what goes in and out."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from soar_tf import attacks as attacks_registry
from soar_tf.attacks import Attack
from soar_tf.datasets.images import FloatImages
from soar_tf.errors import InputError
from soar_tf.models import artefacts, probe
from soar_tf.models.findings import Finding, like_probabilities, look_like_probabilities
from soar_tf.ops import norms
from soar_tf.training import replicas

FIRST = 256
"""Images whose logits are kept to recognise a network by."""

PROBABILITIES = (
    "`network` must give logits, but its outputs are probabilities (each row sums to 1), which "
    "hide gradients; take off the softmax, for a Keras model with soar_tf.networks.to_logits."
)


def attack_name(attack):
    """An attack as it was asked for, or its class's name."""
    return attack if isinstance(attack, str) else type(attack).__name__.lower()


def named_attacks(attacks):
    """Attacks in any form that `evaluate` takes, as pairs of name and `Attack`.

    Raises:
        InputError: For anything else, or a name that is no text.
    """
    if isinstance(attacks, (str, Attack)):
        attacks = [attacks]
    if isinstance(attacks, Mapping):
        pairs = list(attacks.items())
    elif isinstance(attacks, Iterable):
        pairs = [(attack_name(attack), attack) for attack in attacks]
    else:
        raise InputError(
            "`attacks` must be attacks or names of attacks, or a mapping of names to either. "
            f"Received: {attacks!r}."
        )
    for name, _ in pairs:
        if not isinstance(name, str):
            raise InputError(f"`attacks` must have names that are text. Received: {name!r}.")
    return [(name, attacks_registry.get(attack)) for name, attack in pairs]


def batch_signature(shape):
    """The signature of a graph function of (x, y, keys), for any batch size."""
    return (
        tf.TensorSpec([None, *shape], tf.float32),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, 2], tf.uint32),
    )


def batched(logits_fn, shape, batch_size):
    """`[N, ...] -> logits [N, C]` in NumPy, compiled, in batches."""
    signature = [tf.TensorSpec([None, *shape], tf.float32)]
    own = replicas.sharded(functools.partial(logits_fn))  # see `parts.search_graph`
    graph = tf.function(own, input_signature=signature, autograph=False)

    def predict(x):
        starts = range(0, len(x), batch_size)
        return np.concatenate([graph(x[start : start + batch_size]).numpy() for start in starts])

    return predict


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a network answers to images: what is needed of the logits, not all of them.

    Attributes:
        prediction: int64 `[N]`, the classes.
        loss: float32 `[N]`, the cross-entropy in nats.
        correct: bool `[N]`, whether each image is classified correctly; NaN logits are not.
        probabilities: bool `[N]`, whether each output looks like a softmax.
        first: float32 `[n, C]`, the logits of the first images, at most 256.
        span: Difference of the largest and the smallest logit.
    """

    prediction: np.ndarray
    loss: np.ndarray
    correct: np.ndarray
    probabilities: np.ndarray
    first: np.ndarray
    span: float


def answers(predict, x, y, batch_size, *, allow_non_finite=False, allow_probabilities=False):
    """Classifies images batch by batch, and refuses outputs or labels that do not fit.

    Args:
        predict: `[n, ...] -> logits [n, C]` in NumPy, see `batched`.
        x: float32 `[N, ...]`; an array, or `soar_tf.datasets.images.FloatImages`.
        y: int `[N]`.
        batch_size: Images read together.
        allow_non_finite: Whether NaN and infinite logits may stay.
        allow_probabilities: Whether outputs that are a softmax may stay.

    Returns:
        The `Answers`.

    Raises:
        InputError: See `check_logits` and `check_labels`.
    """
    count = len(x)
    found = Answers(
        np.empty(count, np.int64), np.empty(count, np.float32), *np.empty((2, count), bool), [], []
    )
    for start in range(0, count, batch_size):
        rows = slice(start, min(start + batch_size, count))
        logits = predict(x[rows])
        if start == 0:
            _check_rank(logits)
            check_labels(y, count, logits.shape[1])
        if not allow_non_finite:
            _check_finite(logits)
        found.prediction[rows] = logits.argmax(axis=1)
        found.loss[rows] = cross_entropy(logits, y[rows])
        found.correct[rows] = correct(logits, y[rows])
        found.probabilities[rows] = like_probabilities(logits)
        found.span.extend((logits.min(), logits.max()))
        found.first.append(logits[: max(0, FIRST - start)])
    if found.probabilities.all() and not allow_probabilities:
        raise InputError(PROBABILITIES)
    with np.errstate(invalid="ignore"):  # infinities
        span = float(np.ptp(found.span))
    return dataclasses.replace(found, first=np.concatenate(found.first), span=span)


def correct(logits, y):
    """Whether each example is classified correctly; NaN logits are not."""
    return (logits.argmax(axis=1) == y) & np.isfinite(logits).all(axis=1)


def cross_entropy(logits, y):
    """Cross-entropy of each example, float32 `[N]`, in nats."""
    with np.errstate(invalid="ignore"):  # infinite logits give NaN
        logits = logits.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits).sum(axis=1))
        return (total - logits[np.arange(len(y)), y]).astype(np.float32)


def check_logits(logits, allow_non_finite=False):
    """Refuses outputs that are no finite logits `[B, C]`."""
    _check_rank(logits)
    if not allow_non_finite:
        _check_finite(logits)
    if look_like_probabilities(logits):
        raise InputError(PROBABILITIES)


def _check_rank(logits):
    if logits.ndim != 2:
        raise InputError(f"`network` must give logits [B, C]. Received shape {logits.shape}.")


def _check_finite(logits):
    if not np.isfinite(logits).all():
        raise InputError("`network` gives NaN or infinite logits for clean images.")


def check_attacks(network, attacks):
    """Refuses attacks, given as pairs of name and `Attack`, that do not fit what is evaluated."""
    for name, attack in attacks:
        check_pixel_range(name, attack)
        if artefacts.has_gradients(network):
            continue
        if any(part.needs_gradients for _, part in attack.stages()):
            raise InputError(
                f"`attacks` must not need gradients, which the file does not have. Received: "
                f"{name!r}; give soar_tf.attacks.Transferred(attack, source)."
            )


def check_pixel_range(name, attack):
    """Refuses an attack whose pixels are not in [0, 1], as all images here are."""
    if tuple(attack.bounds) != (0.0, 1.0):
        low, high = attack.bounds
        raise InputError(
            f"Attack {name!r} must have `bounds` (0, 1), the range of the images that are "
            f"evaluated. Received: ({low:g}, {high:g})."
        )


def check_labels(y, count, classes):
    """Refuses labels that are no `count` integers from 0 to `classes - 1`."""
    check_label_count(y, count)
    if y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"`y` must hold labels from 0 to {classes - 1}, the network's classes. "
            f"Received labels from {y.min()} to {y.max()}."
        )


def check_label_count(y, count):
    """Refuses labels that are no `count` integers."""
    if y.shape != (count,) or y.dtype.kind not in "iu":
        hint = "; take y.argmax(axis=1) of one-hot labels" if y.ndim == 2 else ""
        raise InputError(
            f"`y` must hold {count} integer labels. Received: {y.dtype} of shape {y.shape}{hint}."
        )


def probed(logits_fn, network, x, y):
    """The `soar_tf.models.probe.Probe` of a network; labels that do not fit are left out."""
    if isinstance(x, FloatImages):  # the images that the probe would choose, and no others
        rows = np.unique(np.linspace(0, len(x) - 1, probe.SAMPLE).round().astype(int))
        x, y = x[rows], y[rows] if y.shape == (len(x),) else y
    fitting = y.shape == (len(x),) and y.dtype.kind in "iu" and len(y) and y.min() >= 0
    return probe.examine(logits_fn, x, y if fitting else None, network=network)


ONE_SIDED = ("one_class", "constant")
"""Names of the findings of `one_sided`, which depend on the images that were attacked."""


def one_sided(predictions, labels):
    """`Finding`s where the answers, or the labels, are all of one class."""
    if len(labels) < 10:
        return
    if len(np.unique(labels)) == 1:
        yield Finding(
            "one_class",
            False,
            f"All {len(labels)} images are of class {labels[0]}: the figures say nothing of the "
            "others.",
        )
    elif len(np.unique(predictions)) == 1:
        yield Finding(
            "constant",
            False,
            f"The network answers class {predictions[0]} to all {len(labels)} images: what it "
            "withstands is that it never answers anything else.",
        )


def check_threat_model(attack, name, x_adv, x):
    """An attack that leaves its ball or the box is a defect; no figure may come from it."""
    low, high = attack.bounds
    if not (x_adv.min() >= low and x_adv.max() <= high):  # NaN is outside, too
        raise AssertionError(f"Attack {name!r} left the pixel range.")
    if attack.norm is None:
        return
    size = norms.norm(tf.constant(x_adv - x), attack.norm).numpy().max()
    if size > attack.epsilon * (1 + 1e-5) + 1e-6:
        raise AssertionError(f"Attack {name!r} left its threat model: size {size:g}.")
