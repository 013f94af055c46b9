"""Adversarial examples of fixed images, saved during training."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from soar_tf import attacks, files
from soar_tf.callbacks.epoch_callback import EpochCallback
from soar_tf.errors import InputError

_MAX_COLUMNS = 32
_MIN_SIDE = 48


class AdversarialExamples(EpochCallback):
    """Attacks the same images after each epoch, and saves the results.

    It writes no logs, but two files per epoch, for example after the third epoch

    * `epoch-00003.npz` with `x`, `x_adv`, `labels`, `predictions` (the classes predicted for
      `x_adv`) and `clean_predictions`;
    * `epoch-00003.png`, for images with 1 or 3 channels: the first 32 images in columns, with the
      clean ones at the top, the adversarial ones in the middle, and at the bottom the
      perturbations, grey where there is none and magnified so that the largest fills the range.

    Images that are already misclassified are not changed. Files of an earlier `fit` in the same
    folder are overwritten.

    Args:
        x: `[N, ...]` images in [0, 1].
        y: `[N]` integer labels.
        attack: An attack, or a name such as `"pgd20"`.
        folder: Output folder, which is created if it does not exist.
        every: Number of epochs between attacks.
        seed: Seed of the attack's noise.
        batch_size: Number of examples to attack at once.

    Raises:
        InputError: For an unknown attack, invalid data, or a folder that cannot be created.

    Example:

    >>> import os, soar_tf, tempfile
    >>> digits = soar_tf.datasets.load("digits")["train"].take(8)
    >>> x, y = digits.float_images(), digits.labels
    >>> model = soar_tf.RobustModel(soar_tf.networks.mlp(width=0.1), "standard")
    >>> model.compile("sgd")
    >>> folder = tempfile.mkdtemp()
    >>> examples = soar_tf.callbacks.AdversarialExamples(x, y, "fgsm:epsilon=0.2", folder)
    >>> history = model.fit(x, y, verbose=0, callbacks=[examples])
    >>> sorted(os.listdir(folder))
    ['epoch-00001.npz', 'epoch-00001.png']
    """

    def __init__(self, x, y, attack, folder, every=1, seed=0, *, batch_size=256):
        super().__init__((x, y), every=every, seed=seed, batch_size=batch_size)
        self.attack, self._attack = attacks.get(attack), attack
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"`folder` {folder} cannot be created: {error.strerror}.") from None

    def prepare(self, network):
        self.attack = self.resolved(self._attack)

    def measure(self, epoch):
        x_adv = np.concatenate(
            [
                self.attack(
                    self.network, self.x[rows], self.y[rows], seed=self.seed, indices=rows
                ).numpy()
                for rows in _batches(len(self.x), self.batch_size)
            ]
        )
        path = self.folder / f"epoch-{epoch + 1:05d}.npz"
        with files.replacing(path) as temporary:
            np.savez_compressed(
                temporary,
                x=self.x,
                x_adv=x_adv,
                labels=self.y,
                predictions=self.evaluator.predict(x_adv).argmax(axis=1),
                clean_predictions=self.evaluator.predict(self.x).argmax(axis=1),
            )
        if self.x.ndim == 4 and self.x.shape[-1] in (1, 3):
            with files.replacing(path.with_suffix(".png")) as temporary:
                temporary.write_bytes(tf.io.encode_png(grid(self.x, x_adv)).numpy())
        return {}


def grid(x, x_adv):
    """Clean images, adversarial ones and magnified perturbations in one picture.

    Args:
        x: float `[N, H, W, C]` in [0, 1], C = 1 or 3.
        x_adv: Like `x`.

    Returns:
        uint8 `[3 rows, columns, C]`; images smaller than 48 pixels are enlarged.
    """
    x, x_adv = x[:_MAX_COLUMNS], x_adv[:_MAX_COLUMNS]
    change = x_adv - x
    largest = np.abs(change).max()
    magnified = 0.5 + 0.5 * change / (largest if largest > 0 else 1.0)
    scale = -(-_MIN_SIDE // min(x.shape[1:3]))
    rows = []
    for images in (x, x_adv, magnified):
        images = images.repeat(scale, axis=1).repeat(scale, axis=2)
        # A white border around each image.
        images = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1.0)
        rows.append(np.concatenate(list(images), axis=1))
    return np.round(np.concatenate(rows) * 255).astype(np.uint8)


def _batches(count, size):
    return np.split(np.arange(count), range(size, count, size))
