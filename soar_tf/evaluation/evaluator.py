"""Accuracy under attack, and the pointwise worst case over all attacks."""

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from soar_tf.attacks import as_logits_fn
from soar_tf.attacks import get as get_attack
from soar_tf.evaluation import outcomes, robustness
from soar_tf.evaluation.parts import Part, Session, search_graph
from soar_tf.evaluation.progress import Counted, Meter
from soar_tf.evaluation.results import Evaluation
from soar_tf.evaluation.shard import Shard
from soar_tf.evaluation.state import State, fingerprint
from soar_tf.models import loading
from soar_tf.validation import check_integer, check_pixels

# A resumed evaluation's outputs may differ from the stored ones by rounding, relative to the range.
_SAME_OUTPUTS = 1e-3


def evaluate(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray,
    attacks,
    *,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable | None = None,
    state=None,
    uint8: bool = False,
    keep: int = 0,
    shard=None,
) -> Evaluation:
    """Measures a network's accuracy under attacks.

    Examples that are misclassified already count as broken and are not attacked. What an attack
    returns is classified once more, by itself, and checked against the threat model. The stages of
    AutoAttack run one after the other, each on what the ones before it left.

    Args:
        network: A `keras.Model` giving logits, any callable `[B, ...] -> [B, C]`, `zoo:NAME` or a
            model file's path, see `soar_tf.models.loading.load`.
        x: float32 `[N, ...]`, pixels in [0, 1].
        y: int `[N]`, labels.
        attacks: Attacks, or names such as `"pgd20"`, see `soar_tf.attacks.get`; or a mapping of
            what they shall be called to either.
        seed: Seed of the attacks' noise; the result does not depend on `batch_size`.
        batch_size: Examples attacked together.
        progress: Called with a `Progress` after each batch, and about twice a second within one.
        state: File that keeps what was found so far: the same call with the same file goes on
            where it was stopped, and ends with the same bits. Or a `State`.
        uint8: Whether adversarial examples are also classified after rounding to 8 bits.
        keep: Number of adversarial images to keep, those found first.
        shard: A text such as `"3/8"` attacks the third of eight shards of the images alone, see
            `soar_tf.evaluation.Shard`; `soar_tf.evaluation.merge` puts the results together.

    Returns:
        An `Evaluation`, of the shard's images if there is one.

    Raises:
        InputError: For no examples, pixels or labels out of range, outputs that are no logits, a
            state file that is damaged or belongs to another evaluation.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(50)
    >>> network = soar_tf.networks.mlp()
    >>> result = soar_tf.evaluate(network, digits.float_images(), digits.labels, ["fgsm"])
    >>> result.n, result.worst_case_accuracy <= result.clean_accuracy
    (50, True)
    """
    check_pixels(np.asarray(x, np.float32), "x")
    evaluator = Evaluator(
        network, attacks, seed=seed, batch_size=batch_size, uint8=uint8, keep=keep
    )
    return evaluator(x, y, progress=progress, state=state, shard=shard)


class Evaluator:
    """`evaluate` as an object that keeps its compiled graphs.

    For a network that is evaluated again and again while its weights change: the attacks are
    compiled in the first call, for each shape of images, and equal seeds draw equal noise in every
    call, so that figures can be compared.

    Args:
        network: A `keras.Model` giving logits, any callable `[B, ...] -> [B, C]`, `zoo:NAME` or a
            model file's path, see `soar_tf.models.loading.load`.
        attacks: Attacks, or names such as `"pgd20"`; or a mapping of what they shall be called to
            either.
        seed: Seed of the attacks' noise.
        batch_size: Examples attacked together.
        allow_non_finite: Whether NaN and infinite logits count as misclassified (the outcome of a
            training that diverged) instead of being refused.
        uint8: Whether adversarial examples are also classified after rounding to 8 bits.
        keep: Number of adversarial images to keep, those found first.

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

    def __init__(
        self, network, attacks, *, seed=0, batch_size=256, allow_non_finite=False, uint8=False,
        keep=0,
    ):  # fmt: skip
        self.seed = check_integer(seed, "seed", minimum=0)
        if isinstance(attacks, Mapping):
            named = attacks.items()
        else:
            named = [(robustness.attack_name(attack), attack) for attack in attacks]
        self.attacks = [(name, get_attack(attack)) for name, attack in named]
        self.batch_size = check_integer(batch_size, "batch_size", minimum=1)
        self.allow_non_finite = allow_non_finite
        self.uint8, self.keep = bool(uint8), check_integer(keep, "keep", minimum=0)
        network = loading.as_network(network)
        self._network = network
        self._logits_fn = as_logits_fn(network)
        self._counted = Counted(self._logits_fn)
        self._graphs = {}

    def __call__(self, x, y, *, progress=None, state=None, shard=None):
        """Attacks; see `evaluate` for the arguments and what comes back."""
        x, y = np.asarray(x, np.float32), np.asarray(y)
        check_pixels(x, "x")
        predict = self._predictor(x.shape[1:])
        if shard is not None:
            shard = self._bound(shard, x, y)
            x, y = x[shard.positions()], y[shard.positions()]
        logits = predict(x)
        robustness.check_logits(logits, self.allow_non_finite)
        robustness.check_labels(y, len(x), logits.shape[1])
        state = state if isinstance(state, State) else State(state)
        self._bind(state, x, y, logits, shard)
        session = Session(
            x, y, predict, self.seed, self.batch_size, state, self.uint8, self.keep,
            None if progress is None else Meter(progress), self._counted.run,
            None if shard is None else shard.positions(),
        )  # fmt: skip
        clean = robustness.correct(logits, y)
        parts = self._parts(x.shape[1:], progress is not None)
        with self._counted.by(session.meter):
            for number, own in enumerate(parts):
                later = sum(
                    session.budget(part) for others in parts[number + 1 :] for part in others
                )
                session.withstood(own, clean, later=later)
        state.save(always=True)
        return self._evaluation(session, parts, clean, logits, shard)

    def _bound(self, shard, x, y):
        """The shard, with what tells it from shards of other evaluations."""
        robustness.check_label_count(y, len(x))
        attacks = [f"{name}: {attack!r}" for name, attack in self.attacks]
        own = {"rounding to uint8": self.uint8, "images kept": self.keep}
        return Shard.parse(shard).bind(self._network, x, y, seed=self.seed, attacks=attacks, **own)

    def check(self, x, y):
        """Refuses data that do not fit the network, after a look at one image."""
        x, y = np.asarray(x, np.float32), np.asarray(y)
        check_pixels(x, "x")
        logits = self.predict(x[:1])
        robustness.check_logits(logits, self.allow_non_finite)
        robustness.check_labels(y, len(x), logits.shape[1])

    def predict(self, x):
        """Logits `[N, C]` in NumPy, float32."""
        x = np.asarray(x, np.float32)
        return self._predictor(x.shape[1:])(x)

    def _predictor(self, shape):
        if shape not in self._graphs:
            self._graphs[shape] = robustness.batched(self._logits_fn, shape, self.batch_size)
        return self._graphs[shape]

    def _parts(self, shape, counted):
        """Every attack's parts, compiled for images of one shape; counting costs a little time."""
        if (shape, counted) not in self._graphs:
            logits_fn = self._counted if counted else self._logits_fn
            self._graphs[shape, counted] = [
                _parts_of(number, name, attack, logits_fn, shape)
                for number, (name, attack) in enumerate(self.attacks)
            ]
        return self._graphs[shape, counted]

    def _bind(self, state, x, y, logits, shard):
        if state.path is None:
            return
        bind(state, self._network, x, y, logits, self.seed, shard)
        state.match(
            attacks=[f"{name}: {attack!r}" for name, attack in self.attacks],
            rounding_to_uint8=self.uint8,
            images_kept=self.keep,
        )

    def _evaluation(self, session, parts, clean, logits, shard):
        """The outcome of all parts, put together."""
        results = [
            outcomes.attack_result(session, name, attack, own, clean)
            for (name, attack), own in zip(self.attacks, parts, strict=True)
        ]
        worst = np.logical_and.reduce([clean, *(result.robust for result in results)])
        rounded = None
        if self.uint8:
            every = [part for own in parts for part in own]
            rounded = float((clean & ~outcomes.broken_when_rounded(session, every)).mean())
        return Evaluation(
            len(clean), float(clean.mean()), results, float(worst.mean()), self.seed, clean,
            outcomes.examples(session, parts, logits, clean), dict(session.state.kept), rounded,
            shard,
        )  # fmt: skip


def bind(state, network, x, y, logits, seed, shard=None):
    """Binds a state to a network, its images and labels, and a seed; refuses one of others."""
    weights = network.get_weights() if hasattr(network, "get_weights") else None
    state.match(
        tensorflow=tf.__version__,
        keras=keras.__version__,
        numpy=np.__version__,
        number_of_images=len(x),
        images=fingerprint(x),
        labels=fingerprint(y.astype(np.int64)),
        network=fingerprint(*weights) if weights else "a function",
        seed=seed,
        shard="none" if shard is None else str(shard),
    )
    state.match_outputs(logits, _SAME_OUTPUTS)


def _parts_of(number, name, attack, logits_fn, shape):
    stages = attack.stages()
    several = len(stages) > 1
    return [
        Part(
            f"{number} {name}/{stage}" if several else f"{number} {name}",
            f"{name} {k}/{len(stages)} {stage}" if several else name,
            f"{name}/{stage}" if several else name,
            own,
            search_graph(own, logits_fn, shape),
        )
        for k, (stage, own) in enumerate(stages, 1)
    ]
