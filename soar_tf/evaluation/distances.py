"""Each example's distance to the nearest misclassified point that a minimum-norm attack finds."""

import dataclasses
from collections.abc import Callable

import numpy as np

from soar_tf import attacks
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness
from soar_tf.evaluation.curve import curve_from_distances
from soar_tf.evaluation.measurement import Measurement
from soar_tf.evaluation.shard import Shard


@dataclasses.dataclass(frozen=True)
class MinimumNorms:
    """The distances that one run of a minimum-norm attack found.

    Attributes:
        n: Number of examples.
        seed: Seed of the attack's noise.
        attack: The attack as it was asked for.
        norm: Norm of the distances.
        distances: float `[N]`, in units of the pixel range: 0 if the example is misclassified
            already, infinity if nothing was found. Each is an upper bound of the true distance.
        shard: The `Shard` that it is of; `None` for all images.
    """

    n: int
    seed: int
    attack: str
    norm: str
    distances: np.ndarray = dataclasses.field(repr=False)
    shard: Shard | None = None

    @property
    def median(self):
        """The median distance over all examples; infinity if less than half broke."""
        return float(np.median(self.distances))

    def accuracy(self, epsilons):
        """Accuracy at any radii, see `curve_from_distances`."""
        return curve_from_distances(self.distances, epsilons)


def minimum_norms(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray,
    attack="fmn",
    *,
    name: str | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable | None = None,
    state=None,
    shard=None,
) -> MinimumNorms:
    """Measures how far each example is from being misclassified.

    One run gives accuracy at every radius: an example withstands those below its distance.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        x: float32 `[N, ...]`, pixels in [0, 1].
        y: int `[N]`, labels.
        attack: A minimum-norm attack: `"fmn"`, `"fmn:norm=l2"`, `"fmn:norm=l1"`, or for l2 `"ddn"`,
            `"cw"`, `"lbfgs"`, `"deepfool"`. Its own radius does not matter.
        name: What the attack shall be called. Default: as it was asked for.
        seed: Seed of the attack's noise.
        batch_size: Examples attacked together.
        progress: Called with a `Progress` after each batch.
        state: File or `State` that keeps what was found, see `soar_tf.evaluate`.
        shard: A text such as `"3/8"`, see `soar_tf.evaluate`.

    Returns:
        A `MinimumNorms`.

    Raises:
        InputError: For an attack that does not look for the nearest point, or arguments that do
            not fit.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(20)
    >>> network = soar_tf.networks.mlp()
    >>> found = soar_tf.evaluation.minimum_norms(
    ...     network, digits.float_images(), digits.labels, "fmn:norm=l2,steps=20")
    >>> found.distances.shape, found.accuracy([0.0])[0] >= found.accuracy([0.5])[0]
    ((20,), True)
    """
    name = name or robustness.attack_name(attack)
    attack = check_minimum_norm(attacks.get(attack), "attack")
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
    session = measured.session
    unbounded = _unbounded(attack, session.x.shape[1:])
    part = measured.part(f"distances {unbounded!r}", f"{name} distances", unbounded)
    with measured.running():
        session.withstood([part], measured.correct)
    table = session.table(part)
    found = np.where(table["broken"], table[attack.norm].astype(np.float64), np.inf)
    distances = np.where(measured.correct, found, 0.0)
    return MinimumNorms(len(distances), session.seed, name, attack.norm, distances, measured.shard)


def check_minimum_norm(attack, argument):
    """Refuses an attack that does not look for the nearest misclassified point."""
    if not attack.minimum_norm:
        names = [name for name, cls in attacks.ALL_OBJECTS.items() if cls.minimum_norm]
        raise InputError(
            f"`{argument}` must look for the nearest point: {', '.join(names)}. "
            f"Received: {type(attack).__name__}."
        )
    return attack


def _unbounded(attack, shape):
    """The same attack in a ball that holds the whole pixel box, searching to the end."""
    low, high = attack.bounds
    order = {"linf": np.inf, "l2": 2, "l1": 1}[attack.norm]
    diameter = float(np.linalg.norm(np.full(np.prod(shape), high - low), order))
    if attack.norm == "linf":
        diameter = min(diameter, 1.0)  # pixels lie in [0, 1]
    config = attack.get_config() | {"epsilon": diameter}
    if "early_stop" in config:
        config["early_stop"] = False
    return type(attack).from_config(config)
