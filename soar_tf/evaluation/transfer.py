"""Transfer: what adversarial examples crafted against one network do to another."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from soar_tf.attacks import as_logits_fn
from soar_tf.attacks import get as get_attack
from soar_tf.attacks.attack import Attack, attack_survivors
from soar_tf.datasets.images import floats
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness
from soar_tf.evaluation.progress import Progress
from soar_tf.models import artefacts
from soar_tf.ops import norms, random
from soar_tf.validation import check_integer, check_pixels, check_seed

# AutoAttack's rule: if a black-box attack lowers the white-box figure by more than 0.2 points,
# the white-box attacks did not do their work.
BLACK_BOX_MARGIN = 0.002


@dataclasses.dataclass(frozen=True)
class TransferMatrix:
    """Accuracy of targets on examples crafted against sources.

    Attributes:
        n: Number of examples.
        seed: Seed of the attack's noise.
        attack: The attack as it was asked for.
        norm: Norm of its threat model; `None` for transformations.
        epsilon: Radius, in units of the pixel range; `None` without a norm.
        fixed_work: Whether examples are the attack's strongest iterate (`Attack.perturb`). False
            for attacks that only have a search, which ends at the first iterate that fools the
            source; these transfer worse.
        sources: Names, the matrix's rows.
        targets: Names, the matrix's columns.
        source_clean_accuracy: `[S]`, each source's accuracy without an attack.
        clean_accuracy: `[T]`, each target's accuracy without an attack.
        white_box: `[T]`, each target's accuracy on examples crafted against itself; NaN for a
            target without gradients, such as a LiteRT file.
        accuracy: `[S, T]`, each target's accuracy on each source's examples.
    """

    n: int
    seed: int
    attack: str
    norm: str | None
    epsilon: float | None
    fixed_work: bool
    sources: tuple
    targets: tuple
    source_clean_accuracy: np.ndarray
    clean_accuracy: np.ndarray
    white_box: np.ndarray
    accuracy: np.ndarray

    def masked(self):
        """Pairs (source, target) where transfer breaks more than white-box, by over 0.2 points.

        The white-box attack sees the target's own gradients; losing to one that does not means
        that these gradients mislead it.
        """
        rows, columns = np.nonzero(self.accuracy + BLACK_BOX_MARGIN < self.white_box[None, :])
        return [
            (self.sources[row], self.targets[column])
            for row, column in zip(rows, columns, strict=True)
        ]

    def to_dict(self):
        """The figures, JSON-serializable, by name."""
        by_target = [dict(zip(self.targets, row.tolist(), strict=True)) for row in self.accuracy]
        return {
            "n": self.n,
            "seed": self.seed,
            "attack": self.attack,
            "norm": self.norm,
            "epsilon": self.epsilon,
            "fixed_work": self.fixed_work,
            "sources": list(self.sources),
            "targets": list(self.targets),
            "source_clean_accuracy": _by_name(self.sources, self.source_clean_accuracy),
            "clean_accuracy": _by_name(self.targets, self.clean_accuracy),
            "white_box": {
                name: None if np.isnan(share) else share
                for name, share in _by_name(self.targets, self.white_box).items()
            },
            "accuracy": dict(zip(self.sources, by_target, strict=True)),
            "masked": [list(pair) for pair in self.masked()],
        }


def transfer_matrix(
    sources: Mapping,
    targets: Mapping,
    x: np.ndarray,
    y: np.ndarray,
    attack,
    *,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable | None = None,
) -> TransferMatrix:
    """Measures how adversarial examples of some networks transfer to others.

    The field's convention: each source is attacked once, from all clean images and with the true
    labels; each target then classifies the results. A target's accuracy is the share of ALL images
    that it classifies correctly both clean and attacked, so that images it misclassifies already
    count as broken, as in `soar_tf.evaluate`.

    Crafting is a fixed amount of work (`Attack.perturb`): the usual search ends at the first
    iterate that fools the source, which lies just behind the source's boundary and often not behind
    the target's; the last iterate is the one that transfers. The white-box figures are crafted in
    the same way, against the target itself, so a target that is also a source has the same figure
    twice. `soar_tf.evaluate`, which keeps any iterate that fools, may come out slightly lower.

    Args:
        sources: Mapping from names to networks to craft against: Keras models giving logits, or
            callables `[B, ...] -> [B, C]` that can be differentiated.
        targets: Mapping from names to networks to attack; these need no gradients.
        x: float32 `[N, ...]`, pixels in [0, 1].
        y: int `[N]`, labels.
        attack: An attack, or a name such as `"pgd20"`, see `soar_tf.attacks.get`.
        seed: Seed of the attack's noise; the result does not depend on `batch_size`.
        batch_size: Examples attacked together.
        progress: Called with a `Progress`, by network's name, after each batch.

    Returns:
        A `TransferMatrix`.

    Raises:
        InputError: For no sources or targets, a source without gradients, networks of different
            shapes or classes, images or labels that do not fit.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(20)
    >>> one, two = soar_tf.networks.mlp(), soar_tf.networks.mlp(width=0.5)
    >>> result = soar_tf.evaluation.transfer_matrix(
    ...     {"one": one}, {"one": one, "two": two}, digits.float_images(), digits.labels, "fgsm")
    >>> result.accuracy.shape, bool(result.accuracy[0, 0] == result.white_box[0])
    ((1, 2), True)
    """
    x, y = floats(x), np.asarray(y)
    check_pixels(x, "x")
    seed = check_seed(seed)
    batch_size = check_integer(batch_size, "batch_size", minimum=1)
    name, attack = robustness.attack_name(attack), get_attack(attack)
    robustness.check_pixel_range(name, attack)
    _check_gradients(sources)
    players = _players(sources, targets, x, y, batch_size)
    crafters, judges = list(sources.values()), list(targets.values())
    figures = {}
    for network, player in players.items():
        judged = list({id(judge): players[id(judge)] for judge in judges}.values())
        if network not in map(id, crafters):
            if not artefacts.has_gradients(player.network):
                continue
            judged = [player]  # for its own white-box accuracy
        robust = _attack_from(player, judged, attack, name, x, y, seed, batch_size, progress)
        for judge, withstood in zip(judged, robust, strict=True):
            figures[network, id(judge.network)] = withstood.mean()
    return TransferMatrix(
        len(x),
        seed,
        name,
        attack.norm,
        attack.epsilon,
        has_fixed_work(attack),
        tuple(sources),
        tuple(targets),
        np.array([players[id(network)].clean.mean() for network in crafters]),
        np.array([players[id(network)].clean.mean() for network in judges]),
        np.array([figures.get((id(network), id(network)), np.nan) for network in judges]),
        np.array([[figures[id(one), id(two)] for two in judges] for one in crafters]),
    )


def has_fixed_work(attack):
    """Whether an attack can craft with a fixed amount of work, up to its strongest iterate."""
    return type(attack).perturb is not Attack.perturb


def craft_graph(attack, logits_fn, shape):
    """Crafting for transfer as one graph for any batch size.

    Args:
        attack: An `Attack`.
        logits_fn: Callable `[n, ...] -> [n, C]`.
        shape: Shape of one example.

    Returns:
        `(x, y, keys) -> x_adv`. A point that is not finite gives way to `x`.
    """

    def craft(x, y, keys):
        if not has_fixed_work(attack):
            return attack_survivors(attack, logits_fn, x, y, keys)
        found = attack.perturb(logits_fn, x, y, keys)
        finite = tf.reduce_all(tf.math.is_finite(norms.flatten(found)), axis=1)
        return tf.where(norms.per_example(finite, x), found, x)

    signature = robustness.batch_signature(shape)
    # A concrete function: TensorFlow would warn of retracing where many networks take their turn.
    return tf.function(craft, input_signature=signature, autograph=False).get_concrete_function()


def _check_gradients(sources):
    for name, network in sources.items() if isinstance(sources, Mapping) else ():
        if not artefacts.has_gradients(network):
            raise InputError(f"Sources must have gradients to craft with. Received: {name}.")


@dataclasses.dataclass(frozen=True)
class _Player:
    """A network that takes part: its logits, compiled prediction, and what it gets right clean."""

    name: str
    network: object
    logits_fn: Callable
    predict: Callable
    classes: int
    clean: np.ndarray


def _players(sources, targets, x, y, batch_size):
    """The networks that take part, each once however often it is named, by identity."""
    players = {}
    for role, networks in (("sources", sources), ("targets", targets)):
        if not isinstance(networks, Mapping) or not networks:
            raise InputError(f"`{role}` must be a mapping of names to at least one network.")
        for name, network in networks.items():
            if id(network) not in players:
                players[id(network)] = _player(name, network, x, y, batch_size)
    first, *others = players.values()
    for other in others:
        if other.classes != first.classes:
            raise InputError(
                "Sources and targets must have the same classes. "
                f"Received: {first.name} with {first.classes} and {other.name} with "
                f"{other.classes}."
            )
    return players


def _player(name, network, x, y, batch_size):
    shape = getattr(network, "input_shape", None)
    if isinstance(shape, tuple) and not tf.TensorShape(shape[1:]).is_compatible_with(x.shape[1:]):
        raise InputError(
            f"Sources and targets must take the same images. Received: {name} for shape "
            f"{shape[1:]} and images of shape {x.shape[1:]}."
        )
    logits_fn = as_logits_fn(network)
    predict = robustness.batched(logits_fn, x.shape[1:], batch_size)
    answers = robustness.answers(predict, x, y, batch_size)
    return _Player(name, network, logits_fn, predict, answers.first.shape[1], answers.correct)


def _attack_from(source, judges, attack, name, x, y, seed, batch_size, progress):
    """Crafts against one network; bool `[J, N]`, whether each judge withstood each example."""
    graph = craft_graph(attack, source.logits_fn, x.shape[1:])
    robust = np.stack([judge.clean for judge in judges])
    for start in range(0, len(x), batch_size):
        rows = slice(start, min(start + batch_size, len(x)))
        keys = random.example_keys(seed, tf.range(rows.start, rows.stop), purpose="attack")
        images = x[rows]
        x_adv = graph(tf.constant(images), tf.constant(y[rows], tf.int64), keys).numpy()
        robustness.check_threat_model(attack, name, x_adv, images)
        for withstood, judge in zip(robust, judges, strict=True):
            withstood[rows] &= robustness.correct(judge.predict(x_adv), y[rows])
        if progress is not None:
            progress(Progress(source.name, rows.stop, len(x)))
    return robust


def _by_name(names, values):
    return dict(zip(names, values.tolist(), strict=True))
