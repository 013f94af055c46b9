"""Gradient masking: does a network resist, or do its gradients only mislead the attacks?"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from soar_tf.attacks import PGD, as_logits_fn
from soar_tf.datasets.images import floats
from soar_tf.errors import InputError
from soar_tf.evaluation import indicators, masking_checks, parts, robustness
from soar_tf.evaluation.indicators import AttackIndicators
from soar_tf.ops import random
from soar_tf.threat_model import NORMS
from soar_tf.validation import check_choice, check_epsilon, check_integer, check_seed

_ORDER = ("pass", "warn", "fail")


@dataclasses.dataclass(frozen=True)
class MaskingReport:
    """What the checks found.

    Attributes:
        n: Number of examples.
        norm: Norm of the threat model.
        epsilon: Radius, in units of the pixel range.
        seed: Seed of the attacks' noise.
        clean_accuracy: Share of the examples classified correctly.
        white_box_accuracy: Share that withstood every gradient attack of the checks.
        checks: One `Check` each.
        broken: Positions of the examples that a check broke within the radius, sorted: they count
            as broken in any headline beside this report.
        indicators: The `AttackIndicators` of PGD, which say what went wrong on the images that it
            does not break. They do not count in the verdict.
    """

    n: int
    norm: str
    epsilon: float
    seed: int
    clean_accuracy: float
    white_box_accuracy: float
    checks: tuple
    broken: tuple = dataclasses.field(default=(), repr=False)
    indicators: AttackIndicators | None = None

    @property
    def verdict(self):
        """The worst verdict: `"pass"`, `"warn"` or `"fail"`."""
        return max((check.verdict for check in self.checks), key=_ORDER.index)

    def to_dict(self):
        """The report, JSON-serializable."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "indicators"]
        report = {"verdict": self.verdict, **{name: getattr(self, name) for name in names}}
        report["checks"] = [dataclasses.asdict(check) for check in self.checks]
        report["broken"] = list(self.broken)
        if self.indicators is not None:
            report["indicators"] = self.indicators.to_dict()
        return report


def masking_report(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray,
    *,
    epsilon=8 / 255,
    norm: str = "linf",
    bounds: tuple = (0.0, 1.0),
    seed: int = 0,
    source: Callable | None = None,
    steps: int = 20,
    queries: int = 1000,
    batch_size: int = 256,
    progress: Callable | None = None,
) -> MaskingReport:
    """Runs every check for gradient masking (Athalye et al. 2018; Carlini et al. 2019).

    A network that masks its gradients looks robust to gradient attacks and is not. Each check
    compares figures that must stand in a known order if the gradients can be trusted: no attack
    with less information or less effort may do better than one with more. All attacks see the
    same images and later ones only those that are still unbroken, so comparisons are paired.
    A check fails only where sampling error cannot explain its figure.

    Passing does not prove robustness; failing means that the white-box figures are unreliable.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        x: float32 `[N, ...]`, pixels in `bounds`; some hundred images make the checks sharp.
        y: int `[N]`, labels.
        epsilon: Radius of the attacks, in units of the pixel range.
        norm: `"linf"`, `"l2"` or `"l1"`.
        bounds: `(low, high)` of valid pixels.
        seed: Seed of the attacks' noise.
        source: A network of the same classes to transfer from, best one trained without a
            defence; without it there is no transfer check.
        steps: PGD steps; the check for more steps takes 5 times as many.
        queries: Queries of the Square attack.
        batch_size: Examples attacked together.
        progress: Called with a `Progress` after each batch.

    Returns:
        A `MaskingReport`.

    Raises:
        InputError: For arguments out of range, data that does not fit, a network that classifies
            no example correctly or gives NaN.

    Reference:
        arXiv:1802.00420, arXiv:1902.06705, and SOAR (arXiv:2004.01832), appendix B.

    Example:

    >>> import keras, soar_tf
    >>> keras.utils.set_random_seed(0)
    >>> digits = soar_tf.datasets.load("digits")["test"].take(50)
    >>> report = soar_tf.evaluation.masking_report(
    ...     soar_tf.networks.mlp(), digits.float_images(), digits.labels, epsilon=0.1,
    ...     steps=2, queries=5)
    >>> report.verdict in ("pass", "warn", "fail"), report.checks[0].name
    (True, 'probabilities')
    """
    options = {"norm": check_choice(norm, "norm", NORMS), "bounds": bounds}
    options["epsilon"] = check_epsilon(epsilon, norm=norm)
    seed = check_seed(seed)
    steps = check_integer(steps, "steps", minimum=1)
    queries = check_integer(queries, "queries", minimum=1)
    subject = Subject(network, x, y, bounds, seed, batch_size, progress)
    if source is not None:
        masking_checks.check_source(subject, source)
    checks = [
        masking_checks.probabilities(subject),
        masking_checks.randomness(subject),
        masking_checks.gradients(subject),
        masking_checks.confidence(subject, options),
        masking_checks.large_epsilon(subject, options, steps),
        *masking_checks.white_box(subject, options, steps),
    ]
    white_box_accuracy = float(subject.robust.mean())
    if source is not None:
        checks.append(masking_checks.transferred(subject, source, options, steps))
    checks.append(masking_checks.black_box(subject, options, queries))
    found = indicators.examine(
        PGD(steps=steps, **options),
        f"PGD-{steps}",
        subject.logits_fn,
        subject.x,
        subject.y,
        subject.clean,
        seed=seed,
        batch_size=subject.batch_size,
    )
    return MaskingReport(
        n=len(subject.x),
        norm=norm,
        epsilon=options["epsilon"],
        seed=seed,
        clean_accuracy=float(subject.clean.mean()),
        white_box_accuracy=white_box_accuracy,
        checks=tuple(checks),
        broken=tuple(np.flatnonzero(subject.clean & ~subject.withstanding).tolist()),
        indicators=found,
    )


class Subject:
    """A network under examination, and the examples that no gradient attack has broken so far.

    Args:
        network, x, y, bounds, seed, batch_size, progress: See `masking_report`.

    Attributes:
        answers: The `robustness.Answers` to the clean images.
        clean: bool `[N]`, whether each example is classified correctly.
        robust: bool `[N]`, whether it withstood every gradient attack so far.
        withstanding: bool `[N]`, whether it withstood every attack within the radius.
    """

    def __init__(self, network, x, y, bounds, seed, batch_size, progress):
        self.x, self.y = floats(x), np.asarray(y)
        low, high = bounds
        if self.x.size == 0 or not (self.x.min() >= low and self.x.max() <= high):
            raise InputError(f"`x` must hold at least one image, with pixels in [{low}, {high}].")
        self.seed, self.progress = seed, progress
        self.batch_size = check_integer(batch_size, "batch_size", minimum=1)
        self.logits_fn = as_logits_fn(network)
        self.predict = robustness.batched(self.logits_fn, self.x.shape[1:], self.batch_size)
        self.answers = robustness.answers(
            self.predict,
            self.x,
            self.y,
            self.batch_size,
            allow_non_finite=True,
            allow_probabilities=True,
        )
        if not np.isfinite(self.answers.span):
            raise InputError("`network` must give finite logits [B, C] for clean images.")
        self.clean = self.answers.correct
        if not self.clean.any():
            raise InputError("`network` classifies none of the images correctly: nothing to mask.")
        self.robust, self.withstanding = self.clean.copy(), self.clean.copy()

    def withstood(self, name, attack, rows, seed_offset=0):
        """Attacks the examples in `rows` (bool `[N]`); bool `[N]`, whether they withstood it."""
        return parts.attack_all(
            attack,
            name,
            self.logits_fn,
            self.predict,
            self.x,
            self.y,
            rows,
            self.seed + seed_offset,
            self.batch_size,
            self.progress,
        )

    def batches(self, rows):
        """Yields (positions, x, y, keys) of the examples in `rows` (bool `[N]`), in batches."""
        positions = np.flatnonzero(rows)
        for start in range(0, len(positions), self.batch_size):
            part = positions[start : start + self.batch_size]
            keys = random.example_keys(self.seed, tf.constant(part), purpose="attack")
            yield part, tf.constant(self.x[part]), tf.constant(self.y[part], tf.int64), keys
