"""What a phase of a run is doing, and how long it will still take, in words."""

import sys
import time

import keras

from soar_tf.formatting import duration_text

# Faster epochs share a line.
SECONDS_BETWEEN_LINES = 10.0


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
            f"Phase {self.name}: {self.done} of {epochs} epochs, {duration_text(each)} each, "
            f"about {duration_text(each * (epochs - self.done))} left",
            file=sys.stderr,
        )


class SkippingNotice(keras.callbacks.Callback):
    """Says on stderr whether the steps skip clipped examples: at first, and where that changes.

    Silent for methods that do not clip their examples' penalties; see `skip_clipped` of
    `soar_tf.RobustModel`.

    Args:
        name: The phase's name.
    """

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.said = None

    def on_epoch_begin(self, epoch, logs=None):
        skips = self.model.skips_clipped
        if skips is None or skips == self.said:
            return
        self.said = skips
        whose = "the unclipped examples only" if skips else "all examples"
        print(
            f"Phase {self.name}: second-order passes of {whose} from epoch {epoch + 1} on",
            file=sys.stderr,
        )
