"""The inner loop of every evaluation: parts, one after the other, each on what is left.

A part is an attack, a stage of AutoAttack or a radius of a curve: whatever runs on the survivors of
the parts before it. Its outcome is a table of the evaluation's `State`, filled batch by batch.
"""

import dataclasses
import functools
import time

import numpy as np
import tensorflow as tf

from soar_tf.attacks.attack import Attack, search_finite
from soar_tf.evaluation import robustness
from soar_tf.evaluation.progress import Counted, Meter, budget, weight
from soar_tf.evaluation.state import State
from soar_tf.models.inference import TracedOnce
from soar_tf.models.keras_internals import has_layers
from soar_tf.ops import norms, random
from soar_tf.training import replicas


@dataclasses.dataclass(frozen=True)
class Part:
    """An attack that an evaluation runs on the survivors of the parts before it.

    Attributes:
        key: What its outcome is called in the state.
        name: What it is called in progress and errors.
        label: What it is called in results.
        attack: The `Attack`.
        graph: Its search, compiled.
    """

    key: str
    name: str
    label: str
    attack: Attack
    graph: object


@dataclasses.dataclass
class Session:
    """Everything that the parts of one evaluation share.

    Attributes:
        x: float32 `[N, ...]`; an array, or `soar_tf.datasets.images.FloatImages`.
        y: int `[N]`.
        predict: `[n, ...] -> logits [n, C]` in NumPy.
        seed: Seed of the attacks' noise.
        batch_size: Examples attacked together.
        state: The evaluation's `State`.
        uint8: Whether adversarial examples are also classified after rounding to 8 bits.
        keep: Number of adversarial examples to keep, those found first.
        meter: The `Meter`, or `None`.
        run: Calls a graph function, see `progress.Counted.run`.
        positions: int `[N]`, the examples' positions in the set that noise is keyed by; `None`
            for 0 to N - 1.
    """

    x: np.ndarray
    y: np.ndarray
    predict: object
    seed: int
    batch_size: int
    state: State = dataclasses.field(default_factory=State)
    uint8: bool = False
    keep: int = 0
    meter: Meter | None = None
    run: object = None
    positions: np.ndarray | None = None

    def withstood(self, parts, rows, *, later=0.0):
        """Runs the parts on the examples in `rows`; bool `[N]`, whether each withstood them all.

        Args:
            parts: List of `Part`s.
            rows: bool `[N]`.
            later: Budget of what the evaluation does afterwards, for the progress.
        """
        robust = rows.copy()
        for number, part in enumerate(parts):
            self._run(part, robust, later + sum(map(self.budget, parts[number + 1 :])))
            robust &= ~self.table(part)["broken"]
        return robust

    def table(self, part):
        """A part's outcome, see `State.table`."""
        return self.state.table(part.key, len(self.x))

    def _run(self, part, rows, later):
        """Attacks the examples in `rows` that the part has not attacked yet."""
        table = self.table(part)
        left = np.flatnonzero(rows & ~table["done"])
        if self.meter is not None and len(left):
            self.meter.begin(
                part.name,
                int(rows.sum()),
                self.budget(part),
                later,
                weight(part.attack),
            )
        for start in range(0, len(left), self.batch_size):
            batch = left[start : start + self.batch_size]
            begun = time.perf_counter()
            x, y = self.x[batch], self.y[batch]
            positions = batch if self.positions is None else self.positions[batch]
            keys = random.example_keys(self.seed, tf.constant(positions), purpose="attack")
            graph = part.graph if self.run is None else functools.partial(self.run, part.graph)
            x_adv = graph(tf.constant(x), tf.constant(y, tf.int64), keys).numpy()
            robustness.check_threat_model(part.attack, part.name, x_adv, x)
            judged = self._judge(table[batch], x_adv, x, y)
            self._keep(positions[judged["broken"]], x_adv[judged["broken"]])
            self.state.fill(part.key, batch, judged, time.perf_counter() - begun)
            self.state.save(always=start + self.batch_size >= len(left))
            if self.meter is not None:
                self.meter.finish_batch(
                    int(table["done"].sum()), int((table["done"] & ~table["broken"]).sum())
                )

    def _judge(self, table, x_adv, x, y):
        """What an attack returned, classified by itself: the batch's rows of the table."""
        logits = self.predict(x_adv)
        table["done"] = True
        table["broken"] = ~robustness.correct(logits, y)
        table["prediction"] = logits.argmax(axis=1)
        table["loss"] = robustness.cross_entropy(logits, y)
        change = tf.constant(x_adv - x)
        for norm in norms.NAMES:
            table[norm] = norms.norm(change, norm).numpy()
        if self.uint8:
            rounded = np.round(x_adv * 255) / np.float32(255)
            table["broken_uint8"] = ~robustness.correct(self.predict(rounded), y)
        return table

    def _keep(self, rows, images):
        kept = self.state.kept
        for row, image in zip(rows.tolist(), images, strict=True):
            if len(kept) < self.keep and row not in kept:
                kept.add(row, image)

    def budget(self, part):
        """What a part costs for an unbroken example, for the progress."""
        return budget(part.attack, self._classes) if self.meter else 0.0

    @functools.cached_property
    def _classes(self):
        return self.predict(self.x[:1]).shape[1]


def traced_once(logits_fn, network):
    """The logits function with one trace for all attacks, where that is the same function.

    Args:
        logits_fn: Callable `[n, ...] -> [n, C]`, the network's or one around it.
        network: What is evaluated. Only of a Keras model it is known that its layers do the same
            in every pass; and a replica's variables are its own.
    """
    keras_model = has_layers(network)
    return TracedOnce(logits_fn) if keras_model and replicas.count() == 1 else logits_fn


def search_graph(attack, logits_fn, shape):
    """The attack's search as one graph for any batch size: survivors do not retrace it."""
    # TensorFlow counts traces by the function's code, and would warn of retracing where several
    # evaluators have a graph each; a `partial` counts for itself.
    search = replicas.sharded(functools.partial(search_finite, attack, logits_fn))
    signature = robustness.batch_signature(shape)
    return tf.function(search, input_signature=signature, autograph=False)


def parts_of(number, name, attack, logits_fn, shape):
    """An attack's stages as `Part`s; `number` tells attacks of one name apart."""
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


def attack_all(attack, name, logits_fn, predict, x, y, rows, seed, batch_size, progress=None):
    """Attacks the examples in `rows` (bool `[N]`); bool `[N]`, whether each withstood it.

    For measurements that keep no state. `predict` gives logits in NumPy, see `robustness.batched`.
    """
    counted = Counted(logits_fn)
    meter = None if progress is None else Meter(progress)
    graph = search_graph(attack, logits_fn if meter is None else counted, x.shape[1:])
    session = Session(x, y, predict, seed, batch_size, meter=meter, run=counted.run)
    with counted.by(meter):
        return session.withstood([Part(name, name, name, attack, graph)], rows)
