"""Accuracy under attack, and the pointwise worst case over all attacks."""

import dataclasses
import functools
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from soar_tf import attacks as attacks_room
from soar_tf.attacks.attack import search_finite
from soar_tf.errors import InputError, check_integer, check_pixels
from soar_tf.ops import norms, random
from soar_tf.training import replicas


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """One attack's outcome.

    Attributes:
        name: The attack as it was asked for.
        norm: Norm of its threat model; `None` for transformations, which no ball bounds.
        epsilon: Radius, in units of the pixel range; `None` without a norm.
        robust_accuracy: Share of all examples that are classified correctly and were not broken.
        seconds: Wall time, compilation included.
        images_per_second: Attacked examples per second.
        robust: bool `[N]`, whether each example withstood it.
    """

    name: str
    norm: str | None
    epsilon: float | None
    robust_accuracy: float
    seconds: float
    images_per_second: float
    robust: np.ndarray = dataclasses.field(repr=False)

    def to_dict(self):
        """The figures, JSON-serializable."""
        return {k: v for k, v in self.__dict__.items() if k != "robust"}


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
    """

    n: int
    clean_accuracy: float
    attacks: list
    worst_case_accuracy: float
    seed: int
    clean: np.ndarray = dataclasses.field(repr=False)

    def to_dict(self):
        """The figures, JSON-serializable."""
        return {
            "n": self.n,
            "clean_accuracy": self.clean_accuracy,
            "attacks": [attack.to_dict() for attack in self.attacks],
            "worst_case_accuracy": self.worst_case_accuracy,
            "seed": self.seed,
        }


def evaluate(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray,
    attacks,
    *,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable | None = None,
) -> Evaluation:
    """Measures a network's accuracy under attacks.

    Examples that are misclassified already count as broken and are not attacked. What an attack
    returns is classified once more, by itself, and checked against the threat model.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        x: float32 `[N, ...]`, pixels in [0, 1].
        y: int `[N]`, labels.
        attacks: Attacks, or names such as `"pgd20"`, see `soar_tf.attacks.get`.
        seed: Seed of the attacks' noise; the result does not depend on `batch_size`.
        batch_size: Examples attacked together.
        progress: Called with (attack's name, examples done, examples in all) after each batch.

    Returns:
        An `Evaluation`.

    Raises:
        InputError: For no examples, pixels or labels out of range, outputs that are no logits.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(50)
    >>> network = soar_tf.networks.mlp()
    >>> result = soar_tf.evaluate(network, digits.float_images(), digits.labels, ["fgsm"])
    >>> result.n, result.worst_case_accuracy <= result.clean_accuracy
    (50, True)
    """
    check_pixels(np.asarray(x, np.float32), "x")
    return Evaluator(network, attacks, seed=seed, batch_size=batch_size)(x, y, progress=progress)


class Evaluator:
    """`evaluate` as an object that keeps its compiled graphs.

    For a network that is evaluated again and again while its weights change: the attacks are
    compiled in the first call, for each shape of images, and equal seeds draw equal noise in every
    call, so that figures can be compared.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        attacks: Attacks, or names such as `"pgd20"`.
        seed: Seed of the attacks' noise.
        batch_size: Examples attacked together.
        allow_non_finite: Whether NaN and infinite logits count as misclassified (the outcome of a
            training that diverged) instead of being refused.

    Raises:
        InputError: For an unknown attack or a value out of range.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(20)
    >>> network = soar_tf.networks.mlp()
    >>> evaluator = soar_tf.evaluation.Evaluator(network, ["fgsm"], seed=1)
    >>> evaluator(digits.float_images(), digits.labels).seed
    1
    """

    def __init__(self, network, attacks, *, seed=0, batch_size=256, allow_non_finite=False):
        self.seed = check_integer(seed, "seed", minimum=0)
        self.attacks = [(attack_name(attack), attacks_room.get(attack)) for attack in attacks]
        self.batch_size = check_integer(batch_size, "batch_size", minimum=1)
        self.allow_non_finite = allow_non_finite
        self._logits_fn = attacks_room.as_logits_fn(network)
        self._graphs = {}

    def __call__(self, x, y, *, progress=None):
        """Attacks; see `evaluate` for the arguments and what comes back."""
        x, y = np.asarray(x, np.float32), np.asarray(y)
        check_pixels(x, "x")
        predict, searches = self._compiled(x.shape[1:])
        logits = predict(x)
        check_logits(logits, self.allow_non_finite)
        check_labels(y, len(x), logits.shape[1])
        clean = correct(logits, y)
        results = []
        for (name, attack), graph in zip(self.attacks, searches, strict=True):
            started = time.perf_counter()
            robust = attack_all(
                attack, name, self._logits_fn, predict, x, y, clean, self.seed, self.batch_size,
                progress, graph,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            results.append(
                AttackResult(
                    name, attack.norm, attack.epsilon, float(robust.mean()), round(seconds, 3),
                    round(len(x) / seconds, 2), robust,
                )
            )  # fmt: skip
        worst = np.logical_and.reduce([clean, *(result.robust for result in results)])
        mean, worst = float(clean.mean()), float(worst.mean())
        return Evaluation(len(x), mean, results, worst, self.seed, clean)

    def check(self, x, y):
        """Refuses data that do not fit the network, after a look at one image."""
        x, y = np.asarray(x, np.float32), np.asarray(y)
        check_pixels(x, "x")
        logits = self.predict(x[:1])
        check_logits(logits, self.allow_non_finite)
        check_labels(y, len(x), logits.shape[1])

    def predict(self, x):
        """Logits `[N, C]` in NumPy, float32."""
        x = np.asarray(x, np.float32)
        return self._compiled(x.shape[1:])[0](x)

    def _compiled(self, shape):
        """The network and every attack's search as graphs for images of one shape."""
        if shape not in self._graphs:
            self._graphs[shape] = (
                batched(self._logits_fn, shape, self.batch_size),
                [_search_graph(attack, self._logits_fn, shape) for _, attack in self.attacks],
            )
        return self._graphs[shape]


def attack_name(attack):
    """An attack as it was asked for, or its class's name."""
    return attack if isinstance(attack, str) else type(attack).__name__.lower()


def attack_all(
    attack, name, logits_fn, predict, x, y, clean, seed, batch_size, progress, graph=None
):
    """Attacks the correctly classified examples; bool `[N]`, whether each withstood it.

    `graph` is the attack's search, compiled already.
    """
    graph = _search_graph(attack, logits_fn, x.shape[1:]) if graph is None else graph
    robust = clean.copy()
    targets = np.flatnonzero(clean)
    for start in range(0, len(targets), batch_size):
        rows = targets[start : start + batch_size]
        keys = random.example_keys(seed, tf.constant(rows), purpose="attack")
        x_adv = graph(tf.constant(x[rows]), tf.constant(y[rows], tf.int64), keys).numpy()
        check_threat_model(attack, name, x_adv, x[rows])
        robust[rows] = correct(predict(x_adv), y[rows])
        if progress is not None:
            progress(name, min(start + batch_size, len(targets)), len(targets))
    return robust


def _search_graph(attack, logits_fn, shape):
    """The attack's search as one graph for any batch size: survivors do not retrace it."""
    # TensorFlow counts traces by the function's code, and would warn of retracing where several
    # evaluators have a graph each; a `partial` counts for itself.
    search = replicas.sharded(functools.partial(search_finite, attack, logits_fn))
    return tf.function(search, input_signature=batch_signature(shape), autograph=False)


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
    own = replicas.sharded(functools.partial(logits_fn))  # see `_search_graph`
    graph = tf.function(own, input_signature=signature, autograph=False)

    def predict(x):
        starts = range(0, len(x), batch_size)
        return np.concatenate([graph(x[start : start + batch_size]).numpy() for start in starts])

    return predict


def correct(logits, y):
    """Whether each example is classified correctly; NaN logits are not."""
    return (logits.argmax(axis=1) == y) & np.isfinite(logits).all(axis=1)


def check_logits(logits, allow_non_finite=False):
    """Refuses outputs that are no finite logits `[B, C]`."""
    if logits.ndim != 2:
        raise InputError(f"`network` must give logits [B, C]. Received shape {logits.shape}.")
    if not allow_non_finite and not np.isfinite(logits).all():
        raise InputError("`network` gives NaN or infinite logits for clean images.")
    if look_like_probabilities(logits):
        raise InputError(
            "`network` must give logits, but its outputs are probabilities (each row sums to 1), "
            "which hide gradients; take off the softmax, for a Keras model with "
            "soar_tf.networks.to_logits."
        )


def look_like_probabilities(logits):
    """Whether outputs `[B, C]` are probabilities: none negative, and each row sums to 1."""
    return bool(logits.min() >= 0.0 and np.allclose(logits.sum(axis=1), 1.0, atol=1e-3))


def check_labels(y, count, classes):
    """Refuses labels that are no `count` integers from 0 to `classes - 1`."""
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise InputError(f"`y` must hold {count} integer labels. Received: shape {y.shape}.")
    if y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"`y` must hold labels from 0 to {classes - 1}, the network's classes. "
            f"Received labels from {y.min()} to {y.max()}."
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
