"""Accuracy under attack during training."""

from soar_tf.callbacks.epoch_callback import EpochCallback, log_name


class RobustAccuracy(EpochCallback):
    """Attacks validation data after each epoch and logs the robust accuracy.

    It writes `val_<attack>_accuracy`, such as `val_pgd20_accuracy` (characters other than letters,
    digits, `-` and `_` become `_`), which `ModelCheckpoint`, `EarlyStopping`, `CSVLogger` and
    `TensorBoard` see if they are listed after it; give `EarlyStopping` `mode="max"`. The first and
    the last epoch and every `every`-th are attacked; the epochs in between repeat the last value.
    The noise is the same in every epoch, and the value is that of `soar_tf.evaluate`.

    Select checkpoints on validation data only: selection on test data inflates the accuracy.

    Args:
        data: Validation data in [0, 1]: arrays `(x, y)`, a `tf.data.Dataset` of batches, or a
            `soar_tf.datasets.Split`.
        attack: An attack, or a name such as `"pgd20"` or `"apgd-ce:epsilon=4/255"`.
        every: Number of epochs between attacks.
        limit: Number of examples, from the start; `None` for all.
        seed: Seed of the attack's noise.
        batch_size: Number of examples to attack at once.
        name: Replaces `<attack>` in the log key.

    Raises:
        InputError: For an unknown attack, invalid data, or a model with a softmax.

    Example:

    >>> import keras, soar_tf
    >>> digits = soar_tf.datasets.load("digits")["train"].take(64)
    >>> model = soar_tf.networks.mlp(width=0.1)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> robust = soar_tf.callbacks.RobustAccuracy(digits, attack="fgsm")
    >>> history = model.fit(digits.float_images(), digits.labels, verbose=0, callbacks=[robust])
    >>> sorted(history.history)
    ['loss', 'val_fgsm_accuracy']
    """

    def __init__(
        self, data, attack="pgd20", every=1, limit=1000, seed=0, *, batch_size=256, name=None
    ):
        super().__init__(data, [attack], every=every, limit=limit, seed=seed, batch_size=batch_size)
        self.key = f"val_{log_name(name or attack)}_accuracy"

    def measure(self, epoch):
        return {self.key: self.evaluator(self.x, self.y).attacks[0].robust_accuracy}
