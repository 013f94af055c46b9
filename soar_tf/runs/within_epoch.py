"""Checkpoints within an epoch: when one is due, what it holds, and the signals that ask for one."""

import contextlib
import itertools
import json
import math
import signal
import sys
import threading
import time

import keras
import numpy as np

from soar_tf.runs import checkpoints
from soar_tf.training import strategies

# About how often several processes ask each other whether to save or to stop. A question costs one
# small collective sum.
SECONDS_BETWEEN_VOTES = 2.0
_LARGEST_PAUSE = 10_000  # steps


class StopRequest:
    """Ctrl-C and SIGTERM during training steps: noted, so that a checkpoint can be written first.

    Elsewhere (in validation, while a checkpoint is written), and at the second time, they do what
    they did before. Signals that no Python function handles are left alone.

    Attributes:
        made: Whether there was one.
        holding: Whether it is noted only; set around the steps.
    """

    def __init__(self):
        self.made = self.holding = False
        self._before = {}

    @contextlib.contextmanager
    def heeded(self):
        """Context in which the signals are handled, if this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(before := signal.getsignal(number)):
                    self._before[number] = before
                    signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, before in self._before.items():
                signal.signal(number, before)

    def _handle(self, number, frame):
        if self.holding and not self.made:
            self.made = True
            print("Stopping after this step, with a checkpoint.", file=sys.stderr)
        else:
            self._before[number](number, frame)


class Moments:
    """Says after each step whether to save and whether to stop: the same in every process.

    Clocks and signals differ from one process to the other, and all have to save together. So they
    ask each other, not in each step, but about every two seconds; the chief says after how many
    steps the next time is.

    Args:
        interval: An `Interval`.
        strategy: The distribution strategy, or `None`.
        clock: Callable that gives seconds.
    """

    def __init__(self, interval, strategy=None, clock=time.monotonic):
        self.interval, self.clock = interval, clock
        self.saved = self.voted = clock()
        several = strategies.hosts(strategy) > 1
        self._sum = strategies.summing(strategy) if several else None
        self._chief = strategies.rank(strategy) == 0
        self._pause = self._left = 1

    def after(self, step, stop):
        """What to do after a step.

        Args:
            step: Steps of the phase that are done.
            stop: Whether this process was asked to stop.

        Returns:
            `(save, stop)`, two bools, the same in every process.
        """
        in_time = self.interval.seconds is not None
        save = not in_time and step % self.interval.steps == 0
        late = in_time and self.clock() - self.saved >= self.interval.seconds
        if self._sum is None:
            return save or late or stop, stop
        self._left -= 1
        if self._left > 0:
            return save, False
        vote = [late, stop, self._next_pause()]
        late, stops, self._pause = (
            int(n) for n in self._sum(np.int32(vote if self._chief else [0, stop, 0]))
        )
        self._left = self._pause
        return bool(save or late or stops), stops > 0

    def _next_pause(self):
        """Steps until the next vote, at most twice as many as until this one."""
        now = self.clock()
        each, self.voted = max(1e-6, (now - self.voted) / self._pause), now
        return max(1, min(2 * self._pause, _LARGEST_PAUSE, int(SECONDS_BETWEEN_VOTES / each)))

    def was_saved(self):
        """Takes note that a checkpoint was written."""
        self.saved = self.clock()


class CheckpointWithinEpoch(keras.callbacks.Callback):
    """Saves a checkpoint within an epoch, where one is due or the process is asked to stop.

    It may follow an epoch's last step: the epoch's own checkpoint comes after validation.

    Args:
        each_epoch: The phase's `checkpoints.CheckpointEachEpoch`.
        interval: An `Interval`.
        steps: Steps of an epoch.
        strategy: The distribution strategy, or `None`.
        clock: Callable that gives seconds.

    Attributes:
        request: The `StopRequest`; training runs in its context.
    """

    def __init__(self, each_epoch, interval, steps, strategy=None, clock=time.monotonic):
        super().__init__()
        self.each_epoch, self.steps, self.strategy = each_epoch, steps, strategy
        self.moments = Moments(interval, strategy, clock)
        self.request = StopRequest()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.request.holding = True

    def on_train_batch_end(self, batch, logs=None):
        done = batch + 1
        save, stop = self.moments.after(self.epoch * self.steps + done, self.request.made)
        self.request.holding = done < self.steps and not stop
        if save and self._is_finite(logs):
            self._save(done, logs)
        if stop:
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        self.moments.was_saved()

    def _is_finite(self, logs):
        """Whether the network is worth keeping: the epoch's end says what is wrong with it."""
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            return False
        return all(np.isfinite(v.numpy()).all() for v in self.model.trainable_variables)

    def _save(self, done, logs):
        own = json.dumps(self.model.epoch_metrics(), default=np.ndarray.tolist).encode()
        parts = [json.loads(part) for part in strategies.gather(self.strategy, own)]
        metrics = [list(itertools.chain(*each)) for each in zip(*parts, strict=True)]
        logs = {name: float(value) for name, value in (logs or {}).items()}
        within = {"step": done, "metrics": metrics, "logs": logs}
        self.each_epoch.save({"epoch": self.epoch, "within": within})
        self.moments.was_saved()

    def _stop(self):
        if self.request.made:
            raise KeyboardInterrupt
        raise strategies.WorkerLost(
            "another worker was asked to stop; give the same command on every host again, and the "
            "run resumes from the last checkpoint."
        )


def metrics_of(strategy, metrics):
    """This process's part of the metrics in a checkpoint's progress, as arrays.

    Args:
        strategy: The distribution strategy, or `None`.
        metrics: A list with one entry per metric variable: one value per replica of the run that
            wrote it. If it had another number of replicas, the first one takes the sum of all.

    Raises:
        InputError: If it is anything else.
    """
    replicas = strategies.describe(strategy)["replicas"]
    local = replicas // strategies.hosts(strategy)
    first = local * strategies.rank(strategy)
    found = []
    for values in checkpoints.metric_arrays(metrics):
        if len(values) != replicas:
            total = values.sum(axis=0, dtype=values.dtype)
            values = np.stack([total, *[np.zeros_like(total)] * (replicas - 1)])
        found.append(list(values[first : first + local]))
    return found
