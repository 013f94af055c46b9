"""Accuracy against the radius of the perturbation."""

import dataclasses
from collections.abc import Callable

import numpy as np

from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness
from soar_tf.evaluation.measurement import Measurement
from soar_tf.evaluation.shard import Shard
from soar_tf.validation import check_epsilon

# Default radii, in multiples of the threat model's: from hardly visible to where all should break.
MULTIPLES = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)


@dataclasses.dataclass(frozen=True)
class AccuracyCurve:
    """Accuracy under one attack at several radii.

    Attributes:
        n: Number of examples.
        seed: Seed of the attack's noise.
        attack: The attack as it was asked for.
        norm: Norm of its threat model.
        epsilons: Radii in units of the pixel range, ascending; the first is 0, no attack.
        accuracy: Share of the examples that withstood the attack at this radius and all smaller.
        broken_at: float `[N]`, the smallest radius at which each example broke: 0 if it is
            misclassified already, infinity if it withstood all. Never below the distance to the
            nearest misclassified point, so that it can be compared with `minimum_norms`.
        shard: The `Shard` that it is of; `None` for all images.
    """

    n: int
    seed: int
    attack: str
    norm: str
    epsilons: tuple
    accuracy: tuple
    broken_at: np.ndarray = dataclasses.field(repr=False, compare=False)
    shard: Shard | None = None

    def to_dict(self):
        """The figures, JSON-serializable."""
        return {
            "n": self.n,
            "seed": self.seed,
            "attack": self.attack,
            "norm": self.norm,
            "epsilons": list(self.epsilons),
            "accuracy": list(self.accuracy),
        }


def accuracy_curve(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray,
    attack="pgd20",
    epsilons=None,
    *,
    name: str | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable | None = None,
    state=None,
    shard=None,
) -> AccuracyCurve:
    """Measures accuracy against the radius of an attack.

    An example that breaks at one radius counts as broken at every larger one, which holds it too:
    the larger ones attack only what is left, and the curve cannot rise. If it does not come down
    to 0 at large radii, the network masks its gradients.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        x: float32 `[N, ...]`, pixels in [0, 1].
        y: int `[N]`, labels.
        attack: An attack with a norm, or a name such as `"pgd20"`. Its own radius scales the
            default `epsilons`.
        epsilons: Radii in units of the pixel range, numbers or `"8/255"`. Default: 1/4, 1/2, 1,
            3/2, 2 and 4 times the attack's own.
        name: What the attack shall be called. Default: as it was asked for.
        seed: Seed of the attack's noise.
        batch_size: Examples attacked together.
        progress: Called with a `Progress` after each batch.
        state: File or `State` that keeps what was found, see `soar_tf.evaluate`.
        shard: A text such as `"3/8"`, see `soar_tf.evaluate`.

    Returns:
        An `AccuracyCurve`.

    Raises:
        InputError: For an attack without a radius, or arguments that do not fit.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(20)
    >>> curve = soar_tf.evaluation.accuracy_curve(
    ...     soar_tf.networks.mlp(), digits.float_images(), digits.labels, "fgsm", [0.1, 0.2])
    >>> curve.epsilons, curve.accuracy[0] >= curve.accuracy[1] >= curve.accuracy[2]
    ((0.0, 0.1, 0.2), True)
    """
    name = name or robustness.attack_name(attack)
    attack = get_attack(attack)
    radii = curve_radii(attack, epsilons)
    measured = Measurement.begin(
        network,
        x,
        y,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
        state=state,
        shard=shard,
    )
    session, robust = measured.session, measured.correct
    parts = [_parts(measured, name, attack, radius) for radius in radii]
    broken_at = np.where(robust, np.inf, 0.0)
    with measured.running():
        for number, (radius, own) in enumerate(zip(radii, parts, strict=True)):
            later = [part for others in parts[number + 1 :] for part in others]
            left = session.withstood(own, robust, later=sum(map(session.budget, later)))
            broken_at[robust & ~left] = radius
            robust = left
    epsilons = (0.0, *radii)
    accuracy = curve_from_distances(broken_at, epsilons)
    return AccuracyCurve(
        len(session.y),
        session.seed,
        name,
        attack.norm,
        epsilons,
        accuracy,
        broken_at,
        measured.shard,
    )


def curve_from_distances(distances, epsilons):
    """Accuracy against the radius, from each example's distance.

    Args:
        distances: float `[N]`, the distance at which each example breaks, see `minimum_norms` and
            `AccuracyCurve.broken_at`; 0 for misclassified ones, infinity where nothing was found.
            The pointwise minimum of several gives the worst case of all.
        epsilons: Radii in the same units.

    Returns:
        Tuple of the shares of the examples that lie further away than each radius: those that
        withstand it.

    Raises:
        InputError: For no distances, or one that is NaN or negative.

    Example:

    >>> import numpy as np
    >>> from soar_tf.evaluation import curve_from_distances
    >>> curve_from_distances(np.array([0.0, 0.02, 0.05, np.inf]), [0.0, 0.02, 0.1])
    (0.75, 0.5, 0.25)
    """
    distances = np.asarray(distances, np.float64)
    if distances.size == 0 or not (distances >= 0).all():
        raise InputError("`distances` must hold at least one number, all 0 or larger, none NaN.")
    return tuple(float((distances > epsilon).mean()) for epsilon in epsilons)


def curve_radii(attack, epsilons=None):
    """The radii of a curve, checked, ascending and without 0 and duplicates."""
    if attack.norm is None:
        raise InputError("`attack` of a curve must have a radius; transformations have none.")
    if epsilons is None:
        largest = 1.0 if attack.norm == "linf" else np.inf
        epsilons = [min(factor * attack.epsilon, largest) for factor in MULTIPLES]
    radii = sorted({check_epsilon(epsilon, "epsilons", attack.norm) for epsilon in epsilons} - {0})
    if not radii:
        raise InputError("`epsilons` of a curve must hold at least one radius above 0.")
    return radii


def _parts(measured, name, attack, radius):
    scaled = type(attack).from_config({**attack.get_config(), "epsilon": radius})
    label = f"{name} at {radius:.4g}"
    return [
        measured.part(f"curve {scaled!r} {stage}", label, own) for stage, own in scaled.stages()
    ]
