"""Says when training has collapsed: when the network gives every image the same answer."""

import math
import sys

import keras

EPOCHS = 2  # at chance one after the other; a single one may be a slow start
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
        kind = "validation loss" if "val_loss" in logs else "loss"
        loss = logs.get("val_loss", logs["loss"])
        at_chance = abs(loss - constant) < NEAR * constant
        self.epochs = self.epochs + 1 if at_chance else 0
        if self.epochs == EPOCHS:
            print(
                f"Phase {self.name}: {kind} {loss:.3f}, that of a network which "
                "gives every image the same answer; it hardly recovers. Try a lower "
                "learning rate, or let epsilon grow: --method-arg "
                "'epsilon=ramp(0, 8/255, epochs=5)'.",
                file=sys.stderr,
            )
