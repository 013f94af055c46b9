"""Stops training when robustness collapses from one epoch to the next."""

import math
import warnings

from soar_tf.callbacks.epoch_callback import EpochCallback, log_name
from soar_tf.training import RobustModel
from soar_tf.validation import check_number

# Decay of the running mean of the alignment per batch: it averages over about twenty batches.
MEMORY = 0.95


class CatastrophicOverfitting(EpochCallback):
    """Stops and restores the best weights when the accuracy under PGD collapses.

    Training with one-step attacks can lose all robustness to multi-step attacks within an epoch,
    even though the training loss decreases (Wong, Rice and Kolter 2020, arXiv:2001.03994). When the
    accuracy under `attack` drops by more than `threshold` from one epoch to the next, training
    stops, and the network gets the weights of the epoch with the highest accuracy. The optimizer
    keeps its state.

    It writes `val_<attack>_accuracy`, such as `val_pgd5_accuracy`, and warns when it stops.

    It also gives an early warning. With a `RobustModel` and a method that crafts its points in one
    step (`fast`, `n-fgsm`, `gradalign`, `elle`, `adversarial` with one step), each batch shows how
    well the gradient that the step followed agrees with the gradient at its end point, without an
    additional pass (`RobustModel.log_alignment`). A running mean of the batches' mean cosine, which
    drops within a few batches when training starts to overfit, is compared with its highest value.
    The logs then contain `alignment`, the value of each epoch's last batch. Other methods and
    models have no such values, and no warning.

    Args:
        data: Held-out data in [0, 1]: arrays `(x, y)`, a `tf.data.Dataset` of batches, or a
            `soar_tf.datasets.Split`. One batch is enough.
        attack: A multi-step attack, or its name.
        threshold: Largest allowed drop, a share of the examples in (0, 1].
        limit: Number of examples, from the start; `None` for all.
        seed: Seed of the attack's noise.
        batch_size: Number of examples to attack at once.
        alignment: Warn, once per `fit`, when the running mean of the cosine is below this share, in
            (0, 1], of its highest value; `None` to ignore the cosine.

    Attributes:
        stopped_epoch: The epoch (from 0) after which training was stopped, or `None`.
        best_epoch: The epoch with the highest accuracy so far.
        warned_batch: The batch (from 0, counted over all epochs of the `fit`) after which the
            alignment warning was given, or `None`.

    Raises:
        InputError: For an argument out of range, or data that do not match the model.

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

    def __init__(
        self,
        data,
        attack="pgd5",
        threshold=0.2,
        limit=256,
        seed=0,
        *,
        batch_size=256,
        alignment=0.5,
    ):
        super().__init__(data, [attack], limit=limit, seed=seed, batch_size=batch_size)
        self.threshold = check_number(
            threshold, "threshold", minimum=0.0, maximum=1.0, exclusive=True
        )
        self.alignment = alignment
        if alignment is not None:
            self.alignment = check_number(
                alignment, "alignment", minimum=0.0, maximum=1.0, exclusive=True
            )
        self.key = f"val_{log_name(attack)}_accuracy"
        self._reset()

    def _reset(self):
        self.stopped_epoch = self.best_epoch = None
        self._previous = self._best = self._best_weights = None
        self.warned_batch = None
        self._batches, self._mean, self._highest = 0, None, 0.0

    def set_model(self, model):
        super().set_model(model)
        if self.alignment is not None and isinstance(model, RobustModel):
            model.log_alignment()

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._reset()

    def measure(self, epoch):
        return {self.key: self.evaluator(self.x, self.y).attacks[0].robust_accuracy}

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        accuracy = self._results[self.key]
        previous, self._previous = self._previous, accuracy
        # A drop of exactly the threshold is allowed, regardless of rounding.
        if previous is not None and previous - accuracy > self.threshold + 1e-9:
            self._stop(epoch, previous, accuracy)
        elif self._best is None or accuracy >= self._best:
            # Among equal epochs, the later one has trained longer.
            self._best, self.best_epoch = accuracy, epoch
            self._best_weights = self.network.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        self._batches += 1
        if self.alignment is None or self.warned_batch is not None:
            return
        cosine = float((logs or {}).get("alignment", math.nan))
        if not math.isfinite(cosine):
            return
        mean = cosine if self._mean is None else MEMORY * self._mean + (1.0 - MEMORY) * cosine
        self._mean, self._highest = mean, max(self._highest, mean)
        if mean < self.alignment * self._highest:
            self.warned_batch = self._batches - 1
            warnings.warn(
                "Catastrophic overfitting may be near: the gradients at both ends of the training "
                f"attack's step have a mean cosine of {mean:.2f}, down from {self._highest:.2f}. "
                "The methods gradalign and elle keep it high; n-fgsm also helps.",
                stacklevel=2,
            )

    def _stop(self, epoch, previous, accuracy):
        self.stopped_epoch = epoch
        self.model.stop_training = True
        self.network.set_weights(self._best_weights)
        warnings.warn(
            f"Catastrophic overfitting: {self.key} dropped from {previous:.3f} to {accuracy:.3f} "
            f"in epoch {epoch + 1}; training stops with the weights of epoch "
            f"{self.best_epoch + 1}.",
            stacklevel=3,
        )
