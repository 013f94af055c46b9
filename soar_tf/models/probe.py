"""One look at what a network does, on a few of the caller's images, before any work begins.

A robust accuracy is worth nothing if the network's outputs are no logits, change from pass to pass
or with the rest of the batch, or if there is no gradient to follow. The last layer's type does not
tell; what comes out does.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models import artefacts, scales
from soar_tf.models.findings import ADVICE, Finding, Probe, output_form, output_values
from soar_tf.models.inference import as_logits_fn
from soar_tf.ops import gradients, losses, random

SAMPLE = 16
"""Number of images that a probe looks at."""

# Two passes of a deterministic network differ by rounding at most, relative to the outputs' range;
# passes over batches of other sizes, whose kernels may differ, by a little more.
_SAME, _SAME_OTHER_SIZE = 1e-4, 5e-3
# A small step up the gradient raises the loss as the gradient says, to a factor of ten, unless the
# loss is a staircase or the gradient not its own.
_STEP, _FACTOR = 0.25 / 255, 10.0
# Noise, rounding and clips matter less beside pixels of another size.
_HELPED_BY_LARGE_PIXELS = {"random", "rounded", "clipped", "no_gradient", "misleading_gradient"}
_LEAST_RISE = 1e-5  # below it, float32 losses cannot tell
# Steps in random directions change the outputs as the gradient says, but for bends on the way. Half
# of the change is more than what bends, and what a quarter of the pixels behind a wall lack.
_FAR, _MISSING = 2 / 255, 0.5
_FEW, _PASSES = 2, 8


def probe(network: Callable, x: np.ndarray, y=None, *, bounds: tuple = (0.0, 1.0)) -> Probe:
    """Looks at what a network does on a few images, as `soar_tf.evaluate` and `fit` do first.

    It sees outputs that are no logits (probabilities, sigmoids, one unit, cut off, rounded),
    outputs that change from pass to pass or with the rest of the batch, a gradient that is missing,
    zero or not the outputs' own, integer inputs, and pixels on another scale.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        x: float32 `[N, ...]`, pixels in `bounds`; at most 16 of them, evenly spread, are used.
        y: int `[N]`, labels; `None` leaves out what needs them.
        bounds: `(low, high)` of valid pixels.

    Returns:
        A `Probe`, whose `findings` are empty if all is well.

    Raises:
        InputError: If the network fails on the images.

    Example:

    >>> import numpy as np, soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(50)
    >>> soar_tf.probe(soar_tf.networks.mlp(), digits.float_images(), digits.labels).names
    ()
    """
    return examine(as_logits_fn(network), x, y, network=network, bounds=bounds)


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
    if y is not None and loss_fn is None and np.asarray(y).dtype.kind not in "iu":
        y = None
    rows = np.unique(np.linspace(0, len(x) - 1, SAMPLE).round().astype(int))
    x = tf.constant(np.asarray(x)[rows], tf.float32)
    y = None if y is None else tf.convert_to_tensor(np.asarray(y)[rows])
    findings = [Finding(*finding) for finding in scales.input_findings(network)]
    if findings:
        return Probe(len(rows), tuple(findings))
    outputs = _outputs(logits_fn, x)
    if (finding := output_form(outputs, logits)) is not None:
        return Probe(len(rows), (finding,))
    z = outputs.numpy()
    if not np.isfinite(z).all():
        finding = Finding(
            "not_finite", True, "`network` gives NaN or infinite logits for clean images."
        )
        return Probe(len(rows), (finding,))
    if logits:
        findings += output_values(z)
    findings += _dependence(logits_fn, x, z)
    if y is not None and loss_fn is None and int(tf.reduce_max(y)) >= z.shape[1]:
        y = None  # whoever uses the labels will say so
    if y is not None and not any(finding.unusable for finding in findings):
        found = ()
        if artefacts.has_gradients(logits_fn):  # a file has none, and whoever attacks it knows
            found = _gradients(logits_fn, loss_fn or losses.cross_entropy, x, y, z, bounds)
        # Two passes of a random network differ by themselves.
        random = any(finding.name == "random" for finding in findings)
        findings += (f for f in found if not (random and f.name == "misleading_gradient"))
        findings += (Finding(*found) for found in scales.findings(network, bounds))
        if not _HELPED_BY_LARGE_PIXELS & {finding.name for finding in findings}:
            better = scales.accuracy_findings(logits_fn, x, y, z, bounds)
            findings += (Finding(*found) for found in better)
    return Probe(len(rows), tuple(findings))


def _outputs(logits_fn, x):
    try:
        outputs = logits_fn(x)
    except InputError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines() or [""]
        raise InputError(
            f"`network` fails on {x.shape[0]} images of shape {tuple(x.shape[1:])}: "
            f"{type(error).__name__}: {first[0]}"
        ) from error
    if isinstance(outputs, np.ndarray):
        raise InputError(
            "`network` must compute with TensorFlow and give a tensor, so that attacks can follow "
            "its gradient. Received: a NumPy array, as keras.Model.predict gives."
        )
    return outputs


def _dependence(logits_fn, x, z):
    """Whether outputs change from pass to pass, or with the rest of the batch or its order."""
    count, span = len(z), max(float(np.ptp(z)), 1e-30)
    half = max(1, count // 2)
    parts = [x[start : start + half] for start in range(0, count, half)]

    def again():
        """Other batches, turned round: another row is not another image."""
        turned = [_outputs(logits_fn, part[::-1]).numpy()[::-1] for part in parts]
        return np.concatenate(turned)

    def moved(one, other):
        return np.abs(one - other).max(axis=1) / span

    try:
        first = again()
    except InputError as error:
        yield Finding("fixed_batch", True, f"{error} Batches of any size must be taken.")
        return
    # A layer may toss one coin per pass, and drop nothing in most of them.
    few = [logits_fn(x[:_FEW]).numpy() for _ in range(_PASSES)]
    differing = max(int((moved(one, few[0]) > _SAME).sum()) for one in few)
    seen = len(few[0])
    changed = moved(first, z)
    if not differing and (changed > _SAME).any():
        differing, seen = int((moved(again(), first) > _SAME).sum()), count
    if differing:
        yield Finding(
            "random",
            False,
            f"Passes over the same images differ on {differing} of {seen}: the network is random "
            f"in inference, so every figure is one draw; use layers that heed `training`{ADVICE}.",
        )
    elif (changed > _SAME_OTHER_SIZE).any():
        dependent = int((changed > _SAME_OTHER_SIZE).sum())
        yield Finding(
            "batch_dependent",
            True,
            f"The outputs of {dependent} of {count} images change with the rest of their batch, or "
            "with its order: the network normalises by batch statistics in inference, or draws "
            "noise by position; call its BatchNormalization layers with training=False, so that "
            "figures do not depend on the batch size.",
        )


def _gradients(logits_fn, loss_fn, x, y, z, bounds):
    """Whether the loss has a gradient, and whether the outputs change along it as it says."""

    def losses_and_scores(x):
        outputs = logits_fn(x)
        label = tf.argmax(outputs, axis=1)
        return tf.stack([loss_fn(y, outputs), _score(outputs, label, span)], axis=1), label

    if len(np.unique(z, axis=0)) == 1:
        return  # an untrained head of zeros: nothing depends on the image yet
    span = float(np.ptp(z))
    values, (gradient, slope), label = _slopes(losses_and_scores, x)
    flat = tf.reshape(gradient, [tf.shape(x)[0], -1]).numpy()
    zero = int((np.abs(flat).max(axis=1) == 0).sum())
    if zero == len(flat):
        yield Finding(
            "no_gradient",
            False,
            f"The loss has no gradient by the image, for none of {zero}: something in the "
            "network cannot be differentiated, and gradient attacks would report the clean "
            f"accuracy; attack a differentiable copy and transfer{ADVICE}.",
        )
        return
    # Of a loss that saturates, rounding would leave too little to compare.
    scale = bounds[1] - bounds[0]
    score = functools.partial(_moved, logits_fn, x, label, span)
    risen = (score(_STEP * scale * tf.sign(slope)) - values[:, 1]).numpy()
    expected = _STEP * scale * np.abs(slope.numpy()).reshape(len(flat), -1).sum(axis=1)
    tells = np.isfinite(expected) & (expected > _LEAST_RISE)
    wrong = tells & ~((risen > expected / _FACTOR) & (risen < expected * _FACTOR))
    if tells.sum() >= 8 and wrong.sum() > tells.sum() // 2:
        yield Finding(
            "misleading_gradient",
            False,
            f"On {wrong.sum()} of {tells.sum()} images a small step up the gradient does not "
            "change the outputs as the gradient says: it is rounded away, random or another "
            f"function's{ADVICE}.",
        )
    elif (missing := _missing_share(score, values[:, 1], slope, x, bounds)) > _MISSING:
        yield Finding(
            "misleading_gradient",
            False,
            f"Random steps change the outputs of {len(flat)} images otherwise than the gradient "
            f"says, by {100 * missing:.0f} % of the change: a part of the network is not in its "
            f"gradient, such as behind a stop_gradient{ADVICE}.",
        )
    elif zero > len(flat) // 10:
        yield Finding(
            "zero_gradient",
            False,
            f"The loss's gradient by the image is exactly zero for {zero} of {len(flat)} images: "
            f"attacks on the cross-entropy cannot move them{ADVICE}.",
        )


def _slopes(values_fn, x):
    """What `gradients.input_gradients` gives."""
    try:
        return gradients.input_gradients(values_fn, x, has_aux=True)
    except tf.errors.OpError:  # `tf.py_function` can be differentiated once after each call
        slopes = []
        for column in range(2):

            def of_column(z, column=column):
                values, label = values_fn(z)
                return values[:, column], (values, label)

            _, slope, (values, label) = gradients.input_gradient(of_column, x, has_aux=True)
            slopes.append(slope)
        return values, slopes, label


def _missing_share(score, before, slope, x, bounds):
    """How much of the change along random steps the gradient does not tell, in [0, 2].

    The smaller of two steps' shares: a short one is rounded away where the network computes with
    few bits, and over a long one an honest network bends.
    """
    low, high = bounds
    far = _FAR * (high - low)
    keys = random.example_keys(0, tf.range(len(x)), purpose="probe")
    signs = np.sign(random.uniform(keys, x.shape[1:], -1.0, 1.0).numpy())
    signs[signs == 0] = 1
    signs[x.numpy() < low + far] = 1  # into the box
    signs[x.numpy() > high - far] = -1
    axes = tuple(range(1, signs.ndim))
    told = (slope.numpy() * signs).sum(axis=axes, dtype=np.float64)
    share = np.inf
    for step in (_STEP * (high - low), far):
        seen = (score(step * signs) - before).numpy().astype(np.float64) / step
        rows = np.isfinite(seen) & np.isfinite(told)
        largest = max(np.linalg.norm(seen[rows]), np.linalg.norm(told[rows]))
        if rows.sum() < 8 or largest * step < _LEAST_RISE * np.sqrt(rows.sum()):
            return 0.0
        share = min(share, float(np.linalg.norm((seen - told)[rows]) / largest))
        if share <= _MISSING:
            break
    return share


def _moved(logits_fn, x, label, span, step):
    return _score(logits_fn(x + step), label, span)


def _score(outputs, label, span):
    """How much the best other logit leads the label's, `[B]`, in units of `span`."""
    return losses.margin(label, outputs) / span
