"""How far an evaluation is, and how long it may still take."""

import concurrent.futures
import contextlib
import time
import typing

import tensorflow as tf

from soar_tf.attacks import Square
from soar_tf.attacks.transforms import Transformation
from soar_tf.errors import InputError

_WITHIN_A_BATCH = 0.5  # seconds from one report to the next


class Progress(typing.NamedTuple):
    """How far an attack is.

    Attributes:
        name: The attack's name; for AutoAttack with its stage, `"autoattack 2/4 apgd-t"`.
        done: Examples that it has finished.
        total: Examples that it attacks.
        robust: Of those finished, the ones that withstood it; `None` where nobody counts them.
        seconds_left: A guess of the time left for the whole evaluation; `None` while unknown.

    Example:

    >>> from soar_tf.evaluation import Progress
    >>> Progress("pgd20", 256, 1000, robust=190).total
    1000
    """

    name: str
    done: int
    total: int
    robust: int | None = None
    seconds_left: float | None = None


class Meter:
    """Counts an evaluation's work and calls `callback` with a `Progress`.

    The unit of work is one example's forward pass; a gradient counts as three. Robust examples
    cost an attack's whole budget and broken ones little, so the guess of what is left starts from
    the budget and goes on from what the examples so far did cost. An attack's clock starts with its
    first pass: what tracing its graph takes says nothing about its speed.

    Args:
        callback: Called after each batch, and about twice a second within one.
    """

    def __init__(self, callback):
        if not callable(callback):
            raise InputError(f"`progress` must be a function or None. Received: {callback!r}.")
        self.callback = callback
        self._worked = self._spent = 0.0
        self._later = 0.0
        self._name = None

    def begin(self, name, total, budget, later, weight=1.0):
        """An attack begins on `total` examples; `later` is the budget of all that follow it."""
        self._name, self._total, self._budget = name, total, budget
        self._later, self._weight = later, weight
        self._done = self._robust = 0
        self._finished = self._batch = 0.0
        self._since, self._reported = None, time.perf_counter()

    def count(self, examples):
        """A pass of `examples` examples: called from within the graph."""
        if self._since is None:
            self._since = time.perf_counter()
        self._batch += int(examples) * self._weight
        if self._name is not None and time.perf_counter() - self._reported > _WITHIN_A_BATCH:
            self._report()

    def finish_batch(self, done, robust):
        """`done` examples were finished in all, of which `robust` withstood."""
        now = time.perf_counter()
        self._spent, self._since = self._spent + self._running(now), now
        self._worked, self._finished = self._worked + self._batch, self._finished + self._batch
        self._done, self._robust, self._batch = done, robust, 0.0
        self._report()

    def _report(self):
        self._reported = time.perf_counter()
        self.callback(
            Progress(self._name, self._done, self._total, self._robust, self._seconds_left())
        )

    def _seconds_left(self):
        worked = self._worked + self._batch
        spent = self._spent + self._running(time.perf_counter())
        if worked == 0 or spent == 0:
            return None
        share = self._robust / self._done if self._done else 1.0
        each = self._finished / self._done if self._done else self._budget
        left = max(each * (self._total - self._done) - self._batch, 0.0)
        left += share * self._total * self._later
        return left * spent / worked

    def _running(self, now):
        """Seconds since the last batch of this attack, or since its first pass."""
        return 0.0 if self._since is None else now - self._since


class Counted:
    """A logits function that counts the passes made through it, from within a graph.

    Args:
        logits_fn: Callable `[n, ...] -> [n, C]`.
    """

    def __init__(self, logits_fn):
        self.logits_fn, self.meter = logits_fn, None
        self._error, self._stop = None, False

    def __call__(self, x):
        tf.numpy_function(self._count, [tf.shape(x)[0]], [])
        return self.logits_fn(x)

    @contextlib.contextmanager
    def by(self, meter):
        """Context in which passes are counted by a `Meter`; `None` counts nothing.

        An exception of the meter's callback ends the graph, and comes out as it was.
        """
        self.meter, self._error, self._stop = meter, None, False
        try:
            yield
        except tf.errors.OpError:
            if self._error is not None:
                raise self._error from None
            raise
        finally:
            self.meter = None

    def run(self, graph, *tensors):
        """Calls a graph so that Ctrl-C ends it at its next pass, and not minutes later.

        Python handles signals between two of the main thread's own instructions, so that thread
        must not be the one that waits in the graph.
        """
        if self.meter is None:
            return graph(*tensors)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(graph, *tensors)
            try:
                return future.result()
            except KeyboardInterrupt:
                self._stop = True
                raise

    def _count(self, examples):
        if self._stop:
            raise KeyboardInterrupt
        if self.meter is not None:
            try:
                self.meter.count(examples)
            except BaseException as error:
                self._error = error
                raise


def weight(attack):
    """What a pass of this attack costs, in forward passes."""
    return 1.0 if isinstance(attack, (Square, Transformation)) else 3.0


def budget(attack, classes):
    """What an unbroken example costs an attack, roughly, in forward passes."""
    attack = getattr(attack, "crafted_by", attack)
    passes = getattr(attack, "steps", None) or getattr(attack, "queries", None)
    passes = passes or getattr(attack, "samples", 1)
    for name in ("restarts", "eot_iter", "search_steps"):
        passes *= getattr(attack, name, 1)
    return passes * min(getattr(attack, "targets", 1), classes - 1) * weight(attack)
