"""Accuracy under attack during training."""

from soar_tf.callbacks.epoch_callback import EpochCallback, log_name


class RobustAccuracy(EpochCallback):
    """Attacks validation data after an epoch and logs the accuracy that is left.

    It writes `val_<attack>_accuracy`, such as `val_pgd20_accuracy` (characters other than letters,
    digits, `-` and `_` become `_`), which `ModelCheckpoint`, `EarlyStopping`, `CSVLogger` and
    `TensorBoard` see if they are LISTED AFTER it; give `EarlyStopping` `mode="max"`. The first and
    the last epoch and every `every`-th are attacked; the epochs between repeat the last figure.
    Equal noise is drawn in every epoch, and the figure is that of `soar_tf.evaluate`.

    Choose checkpoints on validation data only: on test data the figure flatters.

    Args:
        data: Validation data in [0, 1]: arrays `(x, y)`, a `tf.data.Dataset` of batches, or a
            `soar_tf.datasets.Split`.
        attack: An attack, or a name such as `"pgd20"` or `"apgd-ce:epsilon=4/255"`.
        every: Number of epochs from one attack to the next.
        limit: Number of examples, the first ones; `None` takes all.
        seed: Seed of the attack's noise.
        batch_size: Examples attacked together.
        name: Replaces `<attack>` in the log's key.

    Raises:
        InputError: For an unknown attack, data that do not fit, or a model with a softmax.

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
