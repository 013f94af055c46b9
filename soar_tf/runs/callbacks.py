"""Keras callbacks of a training run: time left, skipped passes, collapse, averaged weights."""

import math
import sys
import time

import keras

from soar_tf.formatting import duration_text
from soar_tf.models import keras_internals

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
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        skips = self.model.skips_clipped
        if skips is None or skips == self.said:
            return
        self.said = skips
        whose = "the unclipped examples only" if skips else "all examples"
        place = f"epoch {self.epoch + 1}" + (f", step {batch + 1}" if batch else "")
        hint = "" if skips or self.model.micro_batch else "; --micro-batch bounds their memory"
        print(
            f"Phase {self.name}: second-order passes of {whose} from {place} on{hint}",
            file=sys.stderr,
        )


EPOCHS_AT_CHANCE = 2  # at chance one after the other; a single one may be a slow start
# Relative to the loss of a constant answer. A network that ended at one was within 0.0042 of it.
NEAR = 5e-3


class CollapseNotice(keras.callbacks.Callback):
    """Says on stderr, once, that the validation loss is that of a constant answer.

    Adversarial examples at full strength from the first step on can teach a small network to
    ignore the image. It hardly recovers, and hours may pass before somebody looks.

    Args:
        name: The phase's name.
        num_classes: Number of classes.
    """

    def __init__(self, name, num_classes):
        super().__init__()
        self.name, self.num_classes = name, num_classes
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        constant = math.log(self.num_classes)
        judged = "val_loss" if "val_loss" in logs else "loss"
        kind, loss = judged.replace("val_", "validation "), logs[judged]
        at_chance = abs(loss - constant) < NEAR * constant
        self.epochs = self.epochs + 1 if at_chance else 0
        if self.epochs == EPOCHS_AT_CHANCE:
            print(
                f"Phase {self.name}: {kind} {loss:.3f}, that of a network which "
                "gives every image the same answer; it hardly recovers. Try a lower "
                "learning rate, or let epsilon grow: --method-arg "
                "'epsilon=ramp(0, 8/255, epochs=5)'.",
                file=sys.stderr,
            )


class SwapAverage(keras.callbacks.Callback):
    """Exchanges weights and their moving averages: around validation, and after each epoch.

    It stands twice in the list of callbacks, around those that judge the network at an epoch's
    end; `around_validation` is set for one of the two. `keras.callbacks.SwapEMAWeights` does the
    same by adding and subtracting, which rounds, so that looking at a network would change how it
    trains. At the end of `fit` Keras itself puts the average in the weights' place.

    BatchNorm's moving statistics stay as they are: averages already, of the last steps' batches
    under the weights that were trained, not under the averaged ones.

    Args:
        around_validation: Whether to swap for `fit`'s validation, too.
    """

    def __init__(self, around_validation=False):
        super().__init__()
        self.around_validation = around_validation

    def on_epoch_end(self, epoch, logs=None):
        self._swap()

    def on_test_begin(self, logs=None):
        if self.around_validation:
            self._swap()

    on_test_end = on_test_begin

    def _swap(self):
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        averages = keras_internals.weight_averages(optimizer)
        for weight, average in zip(self.model.trainable_variables, averages, strict=True):
            kept = keras.ops.convert_to_numpy(weight)
            weight.assign(keras.ops.convert_to_numpy(average))
            average.assign(kept)


def on_average(ema, judging):
    """Callbacks that judge the network, so that they see the averaged weights.

    Args:
        ema: Momentum of the average, or `None`: then the callbacks come back as they are.
        judging: List of callbacks.
    """
    return list(judging) if ema is None else [SwapAverage(True), *judging, SwapAverage()]
