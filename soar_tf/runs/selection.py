"""Early stopping and the choice of the best epoch, with a state that a checkpoint can hold."""

import sys

import keras
import numpy as np
import tensorflow as tf

from soar_tf import attacks
from soar_tf.callbacks import RobustAccuracy
from soar_tf.datasets import defaults
from soar_tf.ops import random
from soar_tf.runs.models import trained_for
from soar_tf.runs.train_settings import ROBUST_MONITOR

ATTACKED_IMAGES = 1000  # of the validation attack, unless told otherwise


class Selection(keras.callbacks.EarlyStopping):
    """Keras's `EarlyStopping`, which goes on exactly after a restart.

    It only remembers which epoch was best: that epoch's checkpoint is kept, so its weights need no
    copy in memory, and none that a crash could lose.

    Args:
        monitor: Key of the epoch's logs; `"val_loss"` is minimised, others are maximised.
        patience: Epochs without improvement after which training ends; `None` for never.
        stop_below: Share of the best figure, below which an epoch ends training; `None` for none.
        state: What `state` gave at the epoch to go on after, or `None`.
    """

    def __init__(self, monitor, patience=None, stop_below=None, state=None):
        mode = "min" if monitor == "val_loss" else "max"
        # Keras compares with an integer; no run has this many epochs.
        patience = 2**31 if patience is None else patience
        super().__init__(monitor, patience=patience, mode=mode)
        self.stop_below, self.fell = stop_below, False
        self._restored = state

    @classmethod
    def of(cls, config, state=None):
        """The selection that a `TrainConfig` asks for, or `None`."""
        if config.monitor is None:
            return None
        return cls(config.monitor, config.early_stopping, config.stop_below, state)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self._restored is not None:
            self.wait, self.best = self._restored["wait"], self._restored["best"]
            self.best_epoch = self._restored["best_epoch"]

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        figure = logs[self.monitor]
        if self.stop_below is not None and figure < self.stop_below * self.best:
            self.fell = self.model.stop_training = True
            self.stopped_epoch = epoch
            print(
                f"Epoch {epoch + 1}: {self.monitor} fell to {figure:.3f}, less than "
                f"{self.stop_below:g} of its best (--stop-below). Training ends with epoch "
                f"{self.best_epoch + 1}, which has {self.best:.3f}.",
                file=sys.stderr,
            )

    def state(self):
        """The state after an epoch, as a JSON-serializable dictionary."""
        return {
            "wait": int(self.wait),
            "best": None if self.best is None else float(self.best),
            "best_epoch": int(self.best_epoch),
            "stopped": bool(self.stopped_epoch),
            "fell": self.fell,
        }


def validation_callbacks(config, dataset):
    """The attack on validation images after every epoch that a `TrainConfig` asks for.

    Args:
        config: The resolved configuration.
        dataset: The run's `soar_tf.datasets.Dataset`.

    Returns:
        A list of Keras callbacks, empty or with one that logs `val_robust_accuracy`.

    Raises:
        InputError: For an unknown attack or argument.
    """
    if config.validation_attack is None:
        return []
    trained = {"method": config.method, "method_args": config.method_args}
    threat = trained_for(trained) or defaults.threat_model(config.dataset)
    attack = attacks.get(config.validation_attack, norm=threat.norm, epsilon=threat.epsilon)
    name = ROBUST_MONITOR.removeprefix("val_").removesuffix("_accuracy")
    images = validation_split(dataset, config)
    limit = config.validation_limit or ATTACKED_IMAGES
    return [RobustAccuracy(images, attack, limit=limit, seed=config.seed, name=name)]


def validation_split(dataset, config):
    """The validation images that a run looks at after each epoch.

    Args:
        dataset: The run's `soar_tf.datasets.Dataset`.
        config: The resolved `TrainConfig`.

    Returns:
        A `Split`: all of them, or `validation_limit` drawn at random, the same in every run; images
        of a folder come class by class, so the first ones would be of one class.
    """
    split = dataset["validation"]
    if config.validation_limit is None or config.validation_limit >= len(split):
        return split
    keys = random.example_keys(0, tf.range(len(split)), purpose="validation_sample").numpy()
    # A stable order of the hashes: the same draw on every machine.
    chosen = np.lexsort((keys[:, 1], keys[:, 0]))[: config.validation_limit]
    return split.select(np.sort(chosen))
