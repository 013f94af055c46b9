"""How long a phase of a run will still take, in words."""

import sys
import time

import keras

# Faster epochs share a line.
SECONDS_BETWEEN_LINES = 10.0


def duration(seconds):
    """A duration as people say it: `45 s`, `12 min`, `3 h 5 min`.

    Example:

    >>> from soar_tf.experiments.progress import duration
    >>> duration(44.6), duration(725), duration(11100)
    ('45 s', '12 min', '3 h 5 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 100 else f"{minutes} min"


class PhaseProgress(keras.callbacks.Callback):
    """Says on stderr, after an epoch, how long the phase will still take.

    Keras's own bar knows one epoch only. The first epoch, which compiles, is not taken as a measure
    of the others once there is a second one.

    Args:
        name: The phase's name.
        initial_epoch: Number of epochs that an earlier process has done.
        clock: Callable that gives seconds.
    """

    def __init__(self, name, initial_epoch=0, clock=time.monotonic):
        super().__init__()
        self.name, self.done, self.clock = name, initial_epoch, clock
        self.ends = []

    def on_train_begin(self, logs=None):
        self.ends = [self.clock()]
        self.said = self.clock()

    def on_epoch_end(self, epoch, logs=None):
        now = self.clock()
        self.ends.append(now)
        self.done += 1
        epochs = self.params["epochs"]
        if self.done >= epochs or now - self.said < SECONDS_BETWEEN_LINES:
            return
        self.said = now
        measured = self.ends if len(self.ends) == 2 else self.ends[1:]
        each = (measured[-1] - measured[0]) / (len(measured) - 1)
        print(
            f"Phase {self.name}: {self.done} of {epochs} epochs, {duration(each)} each, "
            f"about {duration(each * (epochs - self.done))} left",
            file=sys.stderr,
        )
