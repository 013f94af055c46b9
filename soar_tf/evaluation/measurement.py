"""What the measurements beside `evaluate` begin with: checked data and a session."""

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np

from soar_tf.attacks import as_logits_fn
from soar_tf.datasets.images import floats, rows_of
from soar_tf.evaluation import robustness
from soar_tf.evaluation.binding import bind
from soar_tf.evaluation.parts import Part, Session, search_graph, traced_once
from soar_tf.evaluation.progress import Counted, Meter
from soar_tf.evaluation.shard import Shard
from soar_tf.evaluation.state import State
from soar_tf.validation import check_integer, check_pixels, check_seed


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A network and data that fit each other, ready to be attacked.

    Attributes:
        session: The `Session` that runs parts.
        correct: bool `[N]`, whether each example is classified correctly.
        shard: The `Shard` that the session attacks, or `None`.
    """

    session: Session
    correct: np.ndarray
    shard: Shard | None
    _logits_fn: Callable
    _counted: Counted

    @classmethod
    def begin(cls, network, x, y, *, seed, batch_size, progress, state, shard=None):
        """Checks everything; see `soar_tf.evaluate` for the arguments.

        Raises:
            InputError: For data, outputs or a state that do not fit.
        """
        seed = check_seed(seed)
        batch_size = check_integer(batch_size, "batch_size", minimum=1)
        x, y = floats(x), np.asarray(y)
        check_pixels(x, "x")
        logits_fn = as_logits_fn(network)
        robustness.probed(logits_fn, network, x, y).raise_if_unusable()
        predict = robustness.batched(logits_fn, x.shape[1:], batch_size)
        positions = None
        if shard is not None:
            robustness.check_label_count(y, len(x))
            shard = Shard.parse(shard).bind(network, x, y, seed=seed)
            positions = shard.positions()
            x, y = rows_of(x, positions), y[positions]
        answers = robustness.answers(predict, x, y, batch_size)
        state = state if isinstance(state, State) else State(state)
        if state.path is not None:
            bind(state, network, x, y, answers.first, seed, shard)
        meter = None if progress is None else Meter(progress)
        counted = Counted(logits_fn)
        session = Session(
            x,
            y,
            predict,
            seed,
            batch_size,
            state,
            meter=meter,
            run=counted.run,
            positions=positions,
        )
        used = traced_once(logits_fn if meter is None else counted, network)
        return cls(session, answers.correct, shard, used, counted)

    def part(self, key, label, attack):
        """An attack as a `Part`: `key` in the state, `label` in progress and errors."""
        robustness.check_pixel_range(label, attack)
        graph = search_graph(attack, self._logits_fn, self.session.x.shape[1:])
        return Part(key, label, label, attack, graph)

    @contextlib.contextmanager
    def running(self):
        """Context in which parts run; the state is written at its end."""
        with self._counted.by(self.session.meter):
            yield
        self.session.state.save(always=True)
