"""Stops a training that loses its robustness from one epoch to the next."""

import warnings

from soar_tf.callbacks.epoch_callback import EpochCallback, log_name
from soar_tf.validation import check_number


class CatastrophicOverfitting(EpochCallback):
    """Stops and restores the best weights when the accuracy under PGD collapses.

    Training with one-step attacks can lose all robustness against several steps within an epoch
    while its own loss falls (Wong, Rice and Kolter 2020, arXiv:2001.03994). When the accuracy under
    `attack` falls by more than `threshold` from one epoch to the next, training stops, and the
    network gets the weights of the epoch with the highest one. The optimizer keeps its state.

    It writes `val_<attack>_accuracy`, such as `val_pgd5_accuracy`, and warns when it stops.

    Args:
        data: Held data in [0, 1]: arrays `(x, y)`, a `tf.data.Dataset` of batches, or a
            `soar_tf.datasets.Split`. One batch is enough.
        attack: An attack of several steps, or its name.
        threshold: Largest fall that is allowed, a share of the examples in (0, 1].
        limit: Number of examples, the first ones; `None` takes all.
        seed: Seed of the attack's noise.
        batch_size: Examples attacked together.

    Attributes:
        stopped_epoch: The epoch (from 0 on) after which it stopped, or `None`.
        best_epoch: The epoch with the highest accuracy so far.

    Raises:
        InputError: For an argument out of range, or data that do not fit the model.

    Example:

    >>> import keras, soar_tf
    >>> digits = soar_tf.datasets.load("digits")["train"].take(64)
    >>> model = soar_tf.RobustModel(soar_tf.networks.mlp(width=0.1), "fast")
    >>> model.compile("sgd")
    >>> guard = soar_tf.callbacks.CatastrophicOverfitting(digits)
    >>> history = model.fit(digits.float_images(), digits.labels, verbose=0, callbacks=[guard])
    >>> guard.stopped_epoch is None
    True
    """

    def __init__(self, data, attack="pgd5", threshold=0.2, limit=256, seed=0, *, batch_size=256):
        super().__init__(data, [attack], limit=limit, seed=seed, batch_size=batch_size)
        self.threshold = check_number(
            threshold, "threshold", minimum=0.0, maximum=1.0, exclusive=True
        )
        self.key = f"val_{log_name(attack)}_accuracy"
        self._forget()

    def _forget(self):
        self.stopped_epoch = self.best_epoch = None
        self._previous = self._best = self._best_weights = None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._forget()

    def measure(self, epoch):
        return {self.key: self.evaluator(self.x, self.y).attacks[0].robust_accuracy}

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        accuracy = self._figures[self.key]
        previous, self._previous = self._previous, accuracy
        # A fall of exactly the threshold is allowed, whatever the rounding.
        if previous is not None and previous - accuracy > self.threshold + 1e-9:
            self._stop(epoch, previous, accuracy)
        elif self._best is None or accuracy >= self._best:
            # Of equal epochs the later one has trained longer.
            self._best, self.best_epoch = accuracy, epoch
            self._best_weights = self.network.get_weights()

    def _stop(self, epoch, previous, accuracy):
        self.stopped_epoch = epoch
        self.model.stop_training = True
        self.network.set_weights(self._best_weights)
        warnings.warn(
            f"Catastrophic overfitting: {self.key} fell from {previous:.3f} to {accuracy:.3f} in "
            f"epoch {epoch + 1}; training stops with the weights of epoch {self.best_epoch + 1}.",
            stacklevel=3,
        )
