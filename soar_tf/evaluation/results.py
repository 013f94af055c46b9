"""What an evaluation found."""

import dataclasses

import numpy as np

from soar_tf.evaluation.intervals import wilson
from soar_tf.evaluation.shard import Shard

# What stands where an attack's name would, for examples that need none.
MISCLASSIFIED = "clean"
# What a probe may find that plain attacks would not see through.
HIDING = (
    *("random", "no_gradient", "zero_gradient", "misleading_gradient"),
    *("clipped", "rounded", "tiny", "bounded"),
)


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """One attack's outcome.

    Attributes:
        name: The attack as it was asked for.
        norm: Norm of its threat model; `None` for transformations, which no ball bounds.
        epsilon: Radius, in units of the pixel range; `None` without a norm.
        robust_accuracy: Share of all examples that are classified correctly and were not broken.
        seconds: Wall time, compilation included; over all runs, if it was resumed.
        images_per_second: Examples per second.
        robust: bool `[N]`, whether each example withstood it.
        stages: For attacks of several stages, `{"name", "robust_accuracy", "seconds"}` of each,
            the accuracy being what is left after it.
        uint8_accuracy: Share that is classified correctly after rounding to 8 bits; `None` if
            nobody asked.
    """

    name: str
    norm: str | None
    epsilon: float | None
    robust_accuracy: float
    seconds: float
    images_per_second: float
    robust: np.ndarray = dataclasses.field(repr=False)
    stages: tuple = ()
    uint8_accuracy: float | None = None

    def to_dict(self):
        """The figures, JSON-serializable."""
        figures = {k: v for k, v in self.__dict__.items() if k != "robust"}
        if not self.stages:
            figures.pop("stages")
        if self.uint8_accuracy is None:
            figures.pop("uint8_accuracy")
        return figures


@dataclasses.dataclass(frozen=True)
class Examples:
    """What happened to each example; every attribute is an array `[N]`.

    An example that is misclassified already needs no perturbation: its size is 0. For one that
    withstood everything, size, prediction and loss are those of no attack: NaN, -1 and NaN.

    Attributes:
        label: int, the true class.
        clean_prediction: int, the class predicted without an attack.
        broken_by: str, the first attack that broke it, for AutoAttack with its stage
            (`"autoattack/apgd-t"`); `"clean"` if it is misclassified already, `""` if it withstood.
        adversarial_prediction: int, the class predicted for that attack's image.
        linf: Largest change of a pixel, in units of the pixel range.
        l2: Euclidean length of the change, in the same units.
        l1: Sum of the changes of all pixels, in the same units; NaN if the change was found under
            a version that did not keep it.
        clean_loss: Cross-entropy without an attack, in nats.
        adversarial_loss: Cross-entropy of that attack's image, in nats.
        index: int, the position in the evaluated set; `None` for 0 to N - 1.
    """

    label: np.ndarray
    clean_prediction: np.ndarray
    broken_by: np.ndarray
    adversarial_prediction: np.ndarray
    linf: np.ndarray
    l2: np.ndarray
    l1: np.ndarray
    clean_loss: np.ndarray
    adversarial_loss: np.ndarray
    index: np.ndarray | None = None

    def columns(self):
        """The table as a dictionary of arrays, with `index` and `clean_correct`."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        label, prediction = own.pop("label"), own.pop("clean_prediction")
        index = own.pop("index")
        return {
            "index": np.arange(len(label)) if index is None else index,
            "label": label,
            "clean_prediction": prediction,
            "clean_correct": self.broken_by != MISCLASSIFIED,
            **own,
        }

    def rows(self, positions):
        """Which rows the examples at these positions of the evaluated set have."""
        positions = np.asarray(positions, np.int64)
        return positions if self.index is None else np.searchsorted(self.index, positions)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network withstood.

    Attributes:
        n: Number of examples.
        clean_accuracy: Share of the examples classified correctly without an attack.
        attacks: One `AttackResult` an attack.
        worst_case_accuracy: Share of the examples that withstood every attack.
        seed: Seed of the attacks' noise.
        clean: bool `[N]`, whether each example is classified correctly.
        examples: An `Examples`, what happened to each.
        kept: Maps positions of broken examples to their adversarial images, as many as `keep`.
        uint8_worst_case_accuracy: Share that withstood every attack's images after rounding them
            to 8 bits; `None` if nobody asked.
        shard: The `Shard` that it is of; `None` for all images.
        findings: What the probe found, a tuple of `soar_tf.models.findings.Finding`s.
    """

    n: int
    clean_accuracy: float
    attacks: list
    worst_case_accuracy: float
    seed: int
    clean: np.ndarray = dataclasses.field(repr=False)
    examples: Examples = dataclasses.field(repr=False)
    kept: dict = dataclasses.field(default_factory=dict, repr=False)
    uint8_worst_case_accuracy: float | None = None
    shard: Shard | None = None
    findings: tuple = ()

    @property
    def hides_gradients(self):
        """Whether the probe found that plain attacks may not see through the network."""
        return any(finding.name in HIDING for finding in self.findings)

    @property
    def interval(self):
        """The Wilson 95 % interval of `worst_case_accuracy`, `(low, high)`: sampling error only."""
        return wilson(round(self.worst_case_accuracy * self.n), self.n)

    def to_dict(self):
        """The figures, JSON-serializable."""
        figures = {
            "n": self.n,
            "clean_accuracy": self.clean_accuracy,
            "attacks": [attack.to_dict() for attack in self.attacks],
            "worst_case_accuracy": self.worst_case_accuracy,
            "worst_case_interval": list(self.interval),
            "seed": self.seed,
        }
        if self.uint8_worst_case_accuracy is not None:
            figures["uint8_worst_case_accuracy"] = self.uint8_worst_case_accuracy
        if self.findings:
            figures["findings"] = [
                {"name": finding.name, "message": finding.message} for finding in self.findings
            ]
        return figures
