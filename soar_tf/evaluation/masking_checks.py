"""The checks of the masking report, one function each, and the thresholds of their verdicts.

Shares are of all examples, so that they are points of accuracy. Where a share is judged, it is the
lower end of its Wilson 95 % interval that must exceed the threshold: with few images a check keeps
silent rather than blame chance on the network.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from soar_tf.attacks import APGDT, FGSM, PGD, Square, as_logits_fn
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness, transfer
from soar_tf.evaluation.intervals import Z95, wilson
from soar_tf.ops import losses, norms
from soar_tf.ops.gradients import input_gradient

# With the whole pixel range to itself an attack turns any image into any other.
LARGE_EPSILON_WARN, LARGE_EPSILON_FAIL = 0.01, 0.05
# FGSM is one step of what PGD may do 20 of. A lead below 0.2 points is chance in single images;
# above 1 point, and twice its standard error, it is a loss surface that hides its slopes.
SINGLE_STEP_WARN, SINGLE_STEP_FAIL = 0.002, 0.01
# Five times the steps, or five starts, lower adversarially trained networks by less than a point.
EFFORT_WARN, EFFORT_FAIL = 0.01, 0.05
EFFORT_FACTOR = 5
# On adversarially trained networks attacks on the margin break 2 to 5 points more than those on
# the cross-entropy; on a SOAR network whose gradients mislead, nearly 40. Where little is left at
# all, the share of it counts: a third of a figure that another loss takes away is not a figure.
MARGIN_WARN, MARGIN_FAIL = 0.05, 0.10
MARGIN_FAIL_RELATIVE = 1 / 3
# A network of little confidence, such as a linear one after a few epochs (32 %), hides nothing: the
# cross-entropy spreads over many classes there, and a margin loses to one. That is told, and no
# failure; the cross-entropy of those that mask is saturated, or flat as SOAR's (99.6 %).
MARGIN_CONFIDENT = 0.5
# A zero gradient is an example that gradient attacks cannot attack; honest float32 networks have
# hardly any.
GRADIENTS_WARN, GRADIENTS_FAIL = 0.01, 0.10
# SOAR's table 5: 99.6 % on networks that mask (zero, random initialisation), 94.9 % on a standard
# one, 53.8 % on an adversarially trained one. Confidence alone proves nothing, so it never fails.
CONFIDENCE_WARN = 0.99
# Two passes of a deterministic network differ by rounding at most; relative to the logits' range.
RANDOMNESS_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Check:
    """One check for gradient masking.

    Attributes:
        name: The check's name.
        verdict: `"pass"`, `"warn"` or `"fail"`.
        figure: The share that was judged.
        sentence: What was found, with the number of images.
    """

    name: str
    verdict: str
    figure: float
    sentence: str


def probabilities(subject):
    """Outputs that look like a softmax: the loss takes a second one, and slopes vanish."""
    rows = subject.answers.probabilities
    wrong = bool(rows.all())
    if wrong:
        sentence = "the outputs are probabilities; attacks need the logits before the softmax"
    else:
        sentence = "the outputs are logits"
    return _check("probabilities", wrong, float(rows.mean()), sentence, subject)


def randomness(subject):
    """Two passes that differ: single gradients point anywhere, single tries may fail by luck."""
    moved, tolerance = 0, RANDOMNESS_TOLERANCE * subject.answers.span
    for start in range(0, len(subject.x), subject.batch_size):
        x = subject.x[start : start + subject.batch_size]
        difference = np.abs(subject.predict(x) - subject.predict(x)).max(axis=1)
        moved += int((~(difference <= tolerance)).sum())
    share = moved / len(subject.x)
    if share:
        sentence = f"two passes differ on {_percent(share)}; use attacks that average (eot_iter)"
    else:
        sentence = "two passes give the same outputs"
    return _check("randomness", share > 0, share, sentence, subject)


def gradients(subject):
    """Examples whose loss has a zero or NaN input gradient: nothing to follow."""

    def values(x, y, keys):
        def loss(point):
            return losses.cross_entropy(y, subject.logits_fn(point))

        gradient = norms.flatten(input_gradient(loss, x)[1])
        largest = tf.reduce_max(tf.abs(gradient), axis=1)
        # A NaN anywhere makes the sum NaN, whatever the maximum says.
        finite = tf.reduce_all(tf.math.is_finite(gradient), axis=1)
        return tf.where(finite, largest, np.nan)

    largest = _in_batches(subject, values, subject.clean)
    zero, lost = int((largest == 0).sum()), int((~np.isfinite(largest)).sum())
    count, n = zero + lost, len(largest)
    return Check(
        "gradients",
        _graded(count, n, GRADIENTS_WARN, GRADIENTS_FAIL),
        count / n,
        f"{zero} of {n} correctly classified images have an input gradient that is exactly zero, "
        f"{lost} one that is not finite.",
    )


def confidence(subject, options):
    """Mean top probability at clean, random and one-step points (SOAR, table 5)."""
    one_step = PGD(steps=1, step_size=options["epsilon"] / 4, **options)

    def values(x, y, keys):
        points = (x, one_step.start(x, keys), one_step.perturb(subject.logits_fn, x, y, keys))
        tops = [tf.reduce_max(tf.nn.softmax(subject.logits_fn(point)), axis=1) for point in points]
        return tf.stack(tops, axis=1)

    means = _in_batches(subject, values, np.ones_like(subject.clean)).mean(axis=0)
    figure = float(means.min())
    clean, noisy, moved = (_percent(float(mean)) for mean in means)
    return Check(
        "confidence",
        "warn" if not figure < CONFIDENCE_WARN else "pass",
        figure,
        f"The mean top probability is {clean} at clean, {noisy} at random and {moved} at one-step "
        f"points of {len(subject.x)} images (near 100 % the loss is flat).",
    )


def large_epsilon(subject, options, steps):
    """PGD with the whole pixel range must break everything."""
    low, high = options["bounds"]
    side = min(high - low, 1.0)
    dimensions = float(np.prod(subject.x.shape[1:]))
    radius = side * dimensions ** {"linf": 0.0, "l2": 0.5, "l1": 1.0}[options["norm"]]
    attack = PGD(**{**options, "epsilon": radius, "steps": steps})
    left = subject.withstood("large epsilon", attack, subject.clean)
    return Check(
        "large_epsilon",
        _graded(left.sum(), len(left), LARGE_EPSILON_WARN, LARGE_EPSILON_FAIL),
        float(left.mean()),
        f"PGD-{steps} with a radius of {radius:.3g}, which holds every image, leaves "
        f"{_percent(left.mean())} of {len(left)} images (0 % is due).",
    )


def white_box(subject, options, steps):
    """Gradient attacks against each other; leaves `subject.robust` with what withstood all.

    Returns:
        The checks `single_step`, `more_steps`, `more_restarts` and `margin_loss`.
    """
    norm = options["norm"]
    pgd = subject.withstood(f"PGD-{steps}", PGD(steps=steps, **options), subject.clean)
    fgsm = subject.withstood("FGSM", FGSM(**options), subject.clean)
    more = EFFORT_FACTOR * steps
    longer = subject.withstood(f"PGD-{more}", PGD(steps=more, **options), pgd)
    # Another seed: the first start of the same one would repeat the run above.
    many = PGD(steps=steps, restarts=EFFORT_FACTOR, **options)
    restarted = subject.withstood(f"{EFFORT_FACTOR} restarts", many, pgd, seed_offset=1)
    entropy = pgd & fgsm & longer & restarted
    margin = subject.withstood("margin loss", APGDT(steps=max(steps, 2), **options), entropy)
    subject.robust = subject.withstanding = margin
    return [
        _single_step(fgsm, pgd, steps),
        _effort("more_steps", f"{more} steps instead of {steps}", pgd, longer, norm),
        _effort("more_restarts", f"{EFFORT_FACTOR} more random starts", pgd, restarted, norm),
        _margin_loss(entropy, margin, _mean_confidence(subject.answers.first)),
    ]


def _mean_confidence(logits):
    """Mean top probability of logits `[N, C]`."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return float((1 / np.exp(shifted).sum(axis=1)).mean())


def _margin_loss(entropy, margin, confident):
    """What a loss that does not saturate breaks where attacks on the cross-entropy gave up."""
    count, left, n = int((entropy & ~margin).sum()), int(entropy.sum()), len(margin)
    verdict = _graded(count, n, MARGIN_WARN, MARGIN_FAIL)
    beyond_chance = wilson(count, n)[0] > EFFORT_WARN
    if left and beyond_chance and wilson(count, left)[0] > MARGIN_FAIL_RELATIVE:
        verdict = "fail"
    if verdict == "fail" and confident < MARGIN_CONFIDENT:
        verdict = "warn"
    return Check(
        "margin_loss",
        verdict,
        count / n,
        f"Attacks on the cross-entropy leave {_percent(entropy.mean())}, a targeted one on the "
        f"margin {_percent(margin.mean())} of {n} images.",
    )


def _single_step(fgsm, pgd, steps):
    n, ahead, behind = len(pgd), int((pgd & ~fgsm).sum()), int((fgsm & ~pgd).sum())
    lead = (ahead - behind) / n
    verdict = "warn" if lead > SINGLE_STEP_WARN else "pass"
    # McNemar's test: only images that one of the two breaks can tell them apart.
    if lead > SINGLE_STEP_FAIL and ahead - behind > Z95 * math.sqrt(ahead + behind):
        verdict = "fail"
    return Check(
        "single_step",
        verdict,
        lead,
        f"FGSM leaves {_percent(fgsm.mean())} and PGD-{steps} {_percent(pgd.mean())} of {n} images "
        "(one step must not beat many).",
    )


def _effort(name, what, before, after, norm="linf"):
    count, n = int((before & ~after).sum()), len(before)
    verdict = _graded(count, n, EFFORT_WARN, EFFORT_FAIL)
    message = f"With {what}, PGD breaks {count} of {n} images more ({100 * count / n:.1f} points)."
    if norm == "l1" and verdict == "fail":
        verdict = "warn"
        message += " In an l1 ball PGD converges slowly, also where gradients are honest."
    return Check(name, verdict, count / n, message)


def check_source(subject, source):
    """Refuses a source network of other classes, before any attack."""
    logits_fn = as_logits_fn(source)
    classes = robustness.batched(logits_fn, subject.x.shape[1:], 1)(subject.x[:1]).shape[-1]
    if classes != subject.answers.first.shape[1]:
        raise InputError(
            f"`source` must have the network's {subject.answers.first.shape[1]} classes. "
            f"Received a network of {classes}."
        )


def transferred(subject, source, options, steps):
    """Examples crafted against another network must not break what white-box attacks left."""
    logits_fn = as_logits_fn(source)
    attack = PGD(steps=steps, **options)
    graph = transfer.craft_graph(attack, logits_fn, subject.x.shape[1:])
    left = subject.robust.copy()
    for rows, x, y, keys in subject.batches(left):
        crafted = graph(x, y, keys).numpy()
        robustness.check_threat_model(attack, "transfer", crafted, subject.x[rows])
        left[rows] = robustness.correct(subject.predict(crafted), subject.y[rows])
    subject.withstanding = subject.withstanding & left
    return _black_box("transfer", f"PGD-{steps} on the source network", subject, left)


def black_box(subject, options, queries):
    """Square, which sees no gradients, must not break what white-box attacks left."""
    attack = Square(queries=queries, **options)
    left = subject.withstood("Square", attack, subject.robust)
    subject.withstanding = subject.withstanding & left
    return _black_box("black_box", f"Square with {queries} queries", subject, left)


def _black_box(name, what, subject, left):
    count, n = int((subject.robust & ~left).sum()), len(left)
    verdict = "warn" if count / n > transfer.BLACK_BOX_MARGIN else "pass"
    if wilson(count, n)[0] > transfer.BLACK_BOX_MARGIN:
        verdict = "fail"
    return Check(
        name,
        verdict,
        count / n,
        f"Gradient attacks leave {_percent(subject.robust.mean())} of {n} images; of these {what} "
        f"breaks {count} ({100 * count / n:.1f} points; more than 0.2 are too many).",
    )


def _check(name, failed, figure, sentence, subject):
    sentence = f"On {len(subject.x)} images {sentence}."
    return Check(name, "fail" if failed else "pass", figure, sentence)


def _graded(count, n, warn, fail):
    lower = wilson(count, n)[0]
    return "fail" if lower > fail else "warn" if lower > warn else "pass"


def _percent(share):
    return f"{100 * share:.1f} %"


def _in_batches(subject, values, rows):
    """Runs a graph function of (x, y, keys) on the examples in `rows`, in batches."""
    signature = robustness.batch_signature(subject.x.shape[1:])
    graph = tf.function(values, input_signature=signature, autograph=False).get_concrete_function()
    return np.concatenate([graph(x, y, keys).numpy() for _, x, y, keys in subject.batches(rows)])
