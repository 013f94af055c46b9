"""Accuracy on another model's adversarial examples, during training."""

import keras
import numpy as np

from soar_tf import attacks
from soar_tf.attacks.attack import attack_survivors, search_finite
from soar_tf.callbacks.epoch_callback import EpochCallback, check_network, log_name, network_of
from soar_tf.evaluation import Evaluator, PerExample
from soar_tf.models import loading


class TransferAccuracy(EpochCallback):
    """Logs the accuracy on adversarial examples crafted once against a source network.

    It writes `val_transfer_accuracy`: the share of the adversarial examples that the network
    classifies correctly. If transferred examples break more than a white-box attack
    (`RobustAccuracy`), the network masks its gradients.

    The examples are crafted when training starts, and kept. Attacks with a fixed amount of work
    (FGSM, BIM, PGD, ...) spend all steps on every example, since examples just past the source's
    decision boundary transfer poorly; the others return the first point that fools the source.

    SavedModels are programs: one that could do more than compute is rejected.

    Args:
        source: A SavedModel folder, a `.keras` file, `zoo:NAME`, a Keras model or a callable
            `[B, ...] -> logits [B, C]` that TensorFlow can differentiate.
        data: Validation data in [0, 1]: arrays `(x, y)`, a `tf.data.Dataset` of batches, or a
            `soar_tf.datasets.Split`.
        attack: An attack, or a name such as `"pgd20"`.
        every: Number of epochs between measurements.
        limit: Number of examples, from the start; `None` for all.
        seed: Seed of the attack's noise.
        batch_size: Number of examples to process at once.
        name: Part of the log key, `val_<name>_accuracy`, to distinguish several sources.
        trust: Whether a SavedModel may contain any operation, such as one that writes files.

    Raises:
        InputError: For a source that cannot be read or gives no logits, or for invalid data.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["train"].take(32)
    >>> model = soar_tf.RobustModel(soar_tf.networks.mlp(width=0.1), "standard")
    >>> model.compile("sgd")
    >>> transfer = soar_tf.callbacks.TransferAccuracy(soar_tf.networks.mlp(), digits, "pgd5")
    >>> history = model.fit(digits.float_images(), digits.labels, verbose=0, callbacks=[transfer])
    >>> sorted(history.history)
    ['loss', 'val_transfer_accuracy']
    """

    def __init__(
        self,
        source,
        data,
        attack="pgd20",
        every=1,
        limit=1000,
        seed=0,
        *,
        batch_size=256,
        name="transfer",
        trust=False,
    ):
        super().__init__(data, every=every, limit=limit, seed=seed, batch_size=batch_size)
        self.attack, self._attack = attacks.get(attack), attack
        self.source = _source(source, self.x.shape[1:], trust)
        Evaluator(self.source, []).check(self.x, self.y)
        self.key = f"val_{log_name(name)}_accuracy"
        self.x_adv = None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.x_adv is None:
            self.attack = self.resolved(self._attack)
            self.x_adv = self._craft()

    def _craft(self):
        logits_fn = attacks.as_logits_fn(self.source)
        all_steps = type(self.attack).perturb is not attacks.Attack.perturb

        def craft(x, y, keys):
            if all_steps:
                return search_finite(_AllSteps(self.attack), logits_fn, x, y, keys)
            return attack_survivors(self.attack, logits_fn, x, y, keys)

        run = PerExample(craft, seed=self.seed, purpose="attack", batch_size=self.batch_size)
        return run(self.x, self.y)

    def measure(self, epoch):
        logits = self.evaluator.predict(self.x_adv)
        correct = (logits.argmax(axis=1) == self.y) & np.isfinite(logits).all(axis=1)
        return {self.key: float(correct.mean())}


class _AllSteps:
    """An attack whose search is `perturb`, with its fixed amount of work."""

    def __init__(self, attack):
        self.search = attack.perturb


def _source(source, image_shape, trust):
    """The source as a Keras model or a logits function."""
    source = loading.as_network(source, "source", trust=trust)
    if isinstance(source, keras.Model):
        source = network_of(source)
        check_network(source, image_shape, "source")
    return source
