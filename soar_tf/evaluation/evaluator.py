"""Accuracy under attack, and the pointwise worst case over all attacks."""

from collections.abc import Callable

import numpy as np

from soar_tf.attacks import as_logits_fn
from soar_tf.datasets.images import floats, rows_of
from soar_tf.evaluation import adaptive as adaptive_attack
from soar_tf.evaluation import class_order, merging, outcome, robustness
from soar_tf.evaluation.binding import bind
from soar_tf.evaluation.data import arrays
from soar_tf.evaluation.parts import Session, parts_of, traced_once
from soar_tf.evaluation.progress import Counted, Meter
from soar_tf.evaluation.results import HIDING, Evaluation
from soar_tf.evaluation.shard import Shard
from soar_tf.evaluation.state import State
from soar_tf.evaluation.straight_through import Averaged
from soar_tf.models import artefacts, loading
from soar_tf.models.findings import ADVICE
from soar_tf.threat_model import ThreatModel
from soar_tf.validation import check_choice, check_integer, check_pixels, check_seed


def evaluate(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray = None,
    attacks=("fgsm", "pgd20"),
    *,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable | None = None,
    state=None,
    uint8: bool = False,
    keep: int = 0,
    shard=None,
    adaptive="auto",
    source=None,
) -> Evaluation:
    """Measures a network's accuracy under attacks.

    Examples that are misclassified already count as broken and are not attacked. What an attack
    returns is classified once more, by itself, and checked against the threat model. The stages of
    AutoAttack run one after the other, each on what the ones before it left.

    Args:
        network: A `keras.Model` giving logits, any callable `[B, ...] -> [B, C]`, `zoo:NAME` or a
            model file's path, see `soar_tf.models.loading.load`.
        x: float32 `[N, ...]`, pixels in [0, 1]; or, without `y`, a `tf.data.Dataset` of batches
            `(x, y)` or a `soar_tf.datasets.Split`.
        y: int `[N]`, labels.
        attacks: Attacks, or names such as `"pgd20"`, see `soar_tf.attacks.get`; or a mapping of
            what they shall be called to either; or one.
        seed: Seed of the attacks' noise; the result does not depend on `batch_size`.
        batch_size: Examples attacked together.
        progress: Called with a `Progress` after each batch, and about twice a second within one.
        state: File that keeps what was found so far: the same call with the same file goes on
            where it was stopped, and ends with the same bits. Or a `State`.
        uint8: Whether adversarial examples are also classified after rounding to 8 bits.
        keep: Number of adversarial images to keep, those found first.
        shard: A text such as `"3/8"` attacks the third of eight shards of the images alone, see
            `soar_tf.evaluation.Shard`; `soar_tf.evaluation.merge` puts the results together.
        adaptive: Whether the adaptive attack follows, see `soar_tf.evaluation.adaptive`: attacks on
            stand-ins of the network that do not hide gradients. `"short"`: with a small budget;
            `"auto"`: the same, but only where the probe finds that the network may hide them. With
            `True` the prediction of one that is random in inference is that of its mean softmax
            over 16 passes.
        source: A network to transfer from in the adaptive attack, or `None`.

    Returns:
        An `Evaluation`, of the shard's images if there is one.

    Raises:
        InputError: For no examples, pixels or labels out of range, a network that the probe calls
            unusable (see `soar_tf.probe`), a state file that is damaged or belongs to another
            evaluation.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(50)
    >>> network = soar_tf.networks.mlp()
    >>> result = soar_tf.evaluate(network, digits.float_images(), digits.labels, ["fgsm"])
    >>> result.n, result.worst_case_accuracy <= result.clean_accuracy
    (50, True)
    """
    if y is None:
        x, y = arrays(x)
    check_pixels(floats(x), "x")
    network = loading.as_network(network)
    evaluator = Evaluator(
        network,
        attacks,
        seed=seed,
        batch_size=batch_size,
        uint8=uint8,
        keep=keep,
        adaptive=adaptive,
        source=source,
    )
    return evaluator(x, y, progress=progress, state=state, shard=shard)


# What the keys of `_parts` begin with.
_OWN_PARTS = r"\d+ |adaptive"


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
        adaptive: See `evaluate`.
        source: See `evaluate`.

    Attributes:
        findings: What the probe found in the first call, a tuple of
            `soar_tf.models.findings.Finding`s; `None` before it.

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
        self,
        network,
        attacks,
        *,
        seed=0,
        batch_size=256,
        allow_non_finite=False,
        uint8=False,
        keep=0,
        adaptive="auto",
        source=None,
    ):
        self.seed = check_seed(seed)
        self.attacks = robustness.named_attacks(attacks)
        self.batch_size = check_integer(batch_size, "batch_size", minimum=1)
        self.allow_non_finite = allow_non_finite
        self.uint8, self.keep = bool(uint8), check_integer(keep, "keep", minimum=0)
        network = None if network is None else loading.as_network(network)
        robustness.check_attacks(network, self.attacks)
        self.adaptive = check_choice(adaptive, "adaptive", (True, False, "auto", "short"))
        self._source = None if source is None else loading.as_network(source, "source")
        self.findings = None
        self._network = network
        self._logits_fn = as_logits_fn(network)
        self._counted = Counted(self._logits_fn)
        self._graphs = {}

    def __call__(self, x, y, *, progress=None, state=None, shard=None):
        """Attacks; see `evaluate` for the arguments and what comes back."""
        x, y = floats(x), np.asarray(y)
        check_pixels(x, "x")
        self._probe(x, y)
        predict = self._predictor(x.shape[1:])
        if shard is not None:
            shard = self._bound(shard, x, y)
            x, y = rows_of(x, shard.positions()), y[shard.positions()]
        answers = robustness.answers(
            predict, x, y, self.batch_size, allow_non_finite=self.allow_non_finite
        )
        state = state if isinstance(state, State) else State(state)
        self._bind(state, x, y, answers, shard)
        session = Session(
            x,
            y,
            predict,
            self.seed,
            self.batch_size,
            state,
            self.uint8,
            self.keep,
            None if progress is None else Meter(progress),
            self._counted.run,
            None if shard is None else shard.positions(),
        )
        parts = self._parts(x.shape[1:], progress is not None)
        with self._counted.by(session.meter):
            for number, (_, _, own) in enumerate(parts):
                later = sum(
                    session.budget(part) for _, _, others in parts[number + 1 :] for part in others
                )
                session.withstood(own, answers.correct, later=later)
        state.save(always=True)
        return self._evaluation(session, parts, answers, shard)

    def _bound(self, shard, x, y):
        """The shard, with what tells it from shards of other evaluations."""
        robustness.check_label_count(y, len(x))
        attacks = [f"{name}: {attack!r}" for name, attack in self.attacks]
        own = {"rounding to uint8": self.uint8, "images kept": self.keep}
        own[merging.ADAPTIVE] = self._adaptive_identity
        return Shard.parse(shard).bind(self._network, x, y, seed=self.seed, attacks=attacks, **own)

    def check(self, x, y):
        """Refuses data that do not fit the network, and networks that figures say nothing of."""
        x, y = floats(x), np.asarray(y)
        check_pixels(x, "x")
        self._probe(x, y)
        logits = self.predict(x[:1])
        robustness.check_logits(logits, self.allow_non_finite)
        robustness.check_labels(y, len(x), logits.shape[1])

    def predict(self, x):
        """Logits `[N, C]` in NumPy, float32."""
        x = floats(x)
        return self._predictor(x.shape[1:])(x)

    def _probe(self, x, y):
        """Looks at the network in the first call; later ones are of the same network."""
        if self.findings is not None:
            return
        found = robustness.probed(self._logits_fn, self._network, x, y)
        if not (self.allow_non_finite and found.names == ("not_finite",)):
            found.raise_if_unusable()
            self.findings = found.findings

    def _found(self, *names):
        return any(finding.name in names for finding in self.findings or ())

    def _said_findings(self):
        """The probe's findings, without advice that is followed already or cannot be."""
        pointless = self.adaptive is True or not artefacts.has_gradients(self._network)
        for finding in self.findings or ():
            if pointless:
                finding = finding._replace(message=finding.message.replace(ADVICE, ""))
            yield finding

    @property
    def _budget(self):
        """The adaptive attack's `Budget`, or `None` where it does not run."""
        if self.adaptive is True:
            return adaptive_attack.FULL
        if not artefacts.has_gradients(self._network):
            return None  # whoever attacks a file lends it another network's gradients
        hides = self.adaptive == "auto" and self._found(*HIDING)
        return adaptive_attack.LOW if hides or self.adaptive == "short" else None

    @property
    def _adaptive_identity(self):
        return adaptive_attack.identity(self._budget, self._source, self._found("random"))

    def _predictor(self, shape):
        if shape not in self._graphs:
            judged = self._logits_fn
            if self.adaptive is True and self._found("random"):
                judged = Averaged(judged, adaptive_attack.JUDGED_DRAWS)
            self._graphs[shape] = robustness.batched(judged, shape, self.batch_size)
        return self._graphs[shape]

    def _parts(self, shape, counted):
        """`(name, threat, parts)` of every attack, compiled for images of one shape.

        Counting the passes, for the progress, costs a little time.
        """
        budget = self._budget
        key = shape, counted, budget
        if key not in self._graphs:
            logits_fn = self._counted if counted else self._logits_fn
            stages = sum(len(attack.stages()) for _, attack in self.attacks)
            shared = traced_once(logits_fn, self._network) if stages > 1 else logits_fn
            self._graphs[key] = [
                (name, attack, parts_of(number, name, attack, shared, shape))
                for number, (name, attack) in enumerate(self.attacks)
            ]
            if budget is not None:
                self._graphs[key] += self._adaptive_parts(logits_fn, shape, budget)
        return self._graphs[key]

    def _adaptive_parts(self, logits_fn, shape, budget):
        """The adaptive attack, once for each ball that the other attacks search."""
        balls = dict.fromkeys(a.threat_model for _, a in self.attacks if a.norm is not None)
        for threat in balls or [ThreatModel()]:
            name = "adaptive" if len(balls) < 2 else f"adaptive {threat}"
            stages = adaptive_attack.stages(
                logits_fn, threat, budget, random=self._found("random"), source=self._source
            )
            yield name, threat, adaptive_attack.parts(name, threat, stages, shape)

    def _bind(self, state, x, y, answers, shard):
        if state.path is None:
            return
        bind(state, self._network, x, y, answers.first, self.seed, shard)
        state.match(
            of=_OWN_PARTS,
            attacks=[f"{name}: {attack!r}" for name, attack in self.attacks],
            rounding_to_uint8=self.uint8,
            images_kept=self.keep,
        )
        if self._budget is not None:  # may follow later, on what the other attacks left
            state.match(of="adaptive", adaptive_attack=self._adaptive_identity)

    def _evaluation(self, session, parts, answers, shard):
        """The outcome of all parts, put together."""
        clean = answers.correct
        results = [outcome.result(session, name, threat, own, clean) for name, threat, own in parts]
        worst = np.logical_and.reduce([clean, *(result.robust for result in results)])
        every = [part for _, _, own in parts for part in own]
        rounded = None
        if self.uint8:
            rounded = float((clean & ~outcome.broken_when_rounded(session, every)).mean())
        examples = outcome.examples(session, every, answers)
        broken = np.flatnonzero(clean & ~worst)
        if session.positions is not None:
            broken = session.positions[broken]
        return Evaluation(
            n=len(clean),
            clean_accuracy=float(clean.mean()),
            attacks=results,
            worst_case_accuracy=float(worst.mean()),
            seed=self.seed,
            clean=clean,
            examples=examples,
            kept=session.state.kept.of(broken.tolist()),
            uint8_worst_case_accuracy=rounded,
            shard=shard,
            findings=(
                *self._said_findings(),
                *robustness.one_sided(answers.prediction, session.y),
                *class_order.findings(answers.prediction, session.y),
            ),
        )
