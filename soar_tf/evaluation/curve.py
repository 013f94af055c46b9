"""Accuracy against the radius of the perturbation."""

import dataclasses
from collections.abc import Callable

import numpy as np

from soar_tf.attacks import as_logits_fn
from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness
from soar_tf.evaluation.evaluator import bind
from soar_tf.evaluation.parts import Part, Session, search_graph
from soar_tf.evaluation.progress import Counted, Meter
from soar_tf.evaluation.state import State
from soar_tf.validation import check_epsilon, check_integer, check_pixels

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
    """

    n: int
    seed: int
    attack: str
    norm: str
    epsilons: tuple
    accuracy: tuple

    def to_dict(self):
        """The figures, JSON-serializable."""
        figures = dataclasses.asdict(self)
        return figures | {"epsilons": list(self.epsilons), "accuracy": list(self.accuracy)}


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
    seed = check_integer(seed, "seed", minimum=0)
    batch_size = check_integer(batch_size, "batch_size", minimum=1)
    x, y = np.asarray(x, np.float32), np.asarray(y)
    check_pixels(x, "x")
    logits_fn = as_logits_fn(network)
    predict = robustness.batched(logits_fn, x.shape[1:], batch_size)
    logits = predict(x)
    robustness.check_logits(logits)
    robustness.check_labels(y, len(x), logits.shape[1])
    state = state if isinstance(state, State) else State(state)
    if state.path is not None:
        bind(state, network, x, y, logits, seed)
    meter = None if progress is None else Meter(progress)
    counted = Counted(logits_fn)
    session = Session(x, y, predict, seed, batch_size, state, meter=meter, run=counted.run)
    parts = [
        _parts(name, attack, radius, logits_fn if meter is None else counted, x.shape[1:])
        for radius in radii
    ]
    robust = robustness.correct(logits, y)
    accuracy = [float(robust.mean())]
    with counted.by(meter):
        for number, own in enumerate(parts):
            later = [part for others in parts[number + 1 :] for part in others]
            robust = session.withstood(own, robust, later=sum(map(session.budget, later)))
            accuracy.append(float(robust.mean()))
    state.save(always=True)
    return AccuracyCurve(len(x), seed, name, attack.norm, (0.0, *radii), tuple(accuracy))


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


def _parts(name, attack, radius, logits_fn, shape):
    scaled = type(attack).from_config({**attack.get_config(), "epsilon": radius})
    label = f"{name} at {radius:.4g}"
    return [
        Part(f"curve {scaled!r} {stage}", label, label, own, search_graph(own, logits_fn, shape))
        for stage, own in scaled.stages()
    ]
