"""Accuracy on corrupted images: what happens to a network without an adversary."""

import dataclasses
from collections.abc import Callable

import numpy as np

from soar_tf import corruptions
from soar_tf.errors import InputError
from soar_tf.evaluation import robustness
from soar_tf.evaluation.measurement import Measurement
from soar_tf.evaluation.progress import Progress
from soar_tf.evaluation.shard import Shard


@dataclasses.dataclass(frozen=True)
class CorruptionAccuracies:
    """Accuracies on images that were corrupted here, not on a published set of such images.

    Attributes:
        n: Number of images.
        seed: Seed of the noise.
        clean_accuracy: Share of the images classified correctly as they are.
        accuracy: Maps each corruption's name to the shares classified correctly at severities 1 to
            5, a tuple.
        shard: The `Shard` that it is of; `None` for all images.
    """

    n: int
    seed: int
    clean_accuracy: float
    accuracy: dict
    shard: Shard | None = None

    @property
    def mean(self):
        """The mean accuracy over all corruptions and severities."""
        return float(np.mean(list(self.accuracy.values())))

    @property
    def by_severity(self):
        """The mean accuracy over all corruptions at severities 1 to 5, a tuple."""
        return tuple(np.mean(list(self.accuracy.values()), axis=0).tolist())

    def to_dict(self):
        """The accuracies, JSON-serializable."""
        return {
            "n": self.n,
            "seed": self.seed,
            "clean_accuracy": self.clean_accuracy,
            "mean": self.mean,
            "by_severity": list(self.by_severity),
            "accuracy": {name: list(shares) for name, shares in self.accuracy.items()},
        }


def corruption_accuracies(
    network: Callable,
    x: np.ndarray,
    y: np.ndarray,
    names=None,
    *,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable | None = None,
    state=None,
    shard=None,
) -> CorruptionAccuracies:
    """Measures accuracy on corrupted images, at five severities each.

    The images are computed here, from `x`, by the recipes and constants published for CIFAR images
    (`soar_tf.corruptions`). They are not the files of CIFAR-10-C: noise is drawn anew, decoders and
    resizing differ by rounding, and the corruptions that need further files are missing. So
    accuracies must not be put beside those of CIFAR-10-C without saying so. An image's noise is a
    function of the seed, the corruption, the severity and the image's position.

    Args:
        network: A `keras.Model` giving logits, or any callable `[B, ...] -> [B, C]`.
        x: float32 `[N, H, W, C]`, pixels in [0, 1], 1 or 3 channels.
        y: int `[N]`, labels.
        names: Names of corruptions. Default: all built-in ones that change such images.
        seed: Seed of the noise.
        batch_size: Images worked on together.
        progress: Called with a `Progress` after each batch.
        state: File or `State` that keeps the finished corruptions, see `soar_tf.evaluate`.
        shard: A text such as `"3/8"`, see `soar_tf.evaluate`.

    Returns:
        A `CorruptionAccuracies`.

    Raises:
        InputError: For an unknown corruption, or arguments that do not fit.

    Reference:
        Hendrycks and Dietterich 2019, arXiv:1903.12261.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["test"].take(20)
    >>> found = soar_tf.evaluation.corruption_accuracies(
    ...     soar_tf.networks.mlp(), digits.float_images(), digits.labels, ["contrast"])
    >>> len(found.accuracy["contrast"]), 0 <= found.mean <= 1
    (5, True)
    """
    shape = np.shape(x)[1:]
    allowed = corruptions.names_for(shape)
    names = allowed if names is None else tuple(dict.fromkeys(names))
    if not names:
        raise InputError("`names` must hold at least one corruption.")
    for name in names:
        corruptions.get(name)
    if shape[-1] == 1 and (lost := [name for name in names if name in corruptions.COLOUR_ONLY]):
        raise InputError(f"`names`: {lost[0]} needs images of 3 channels.")
    measured = Measurement.begin(
        network, x, y, seed=seed, batch_size=batch_size, progress=None, state=state, shard=shard
    )
    session = measured.session
    stored = session.state.sections.get("corruptions")
    stored = stored if isinstance(stored, dict) else {}
    found = {}
    for number, name in enumerate(names, 1):
        label = f"corruptions {number}/{len(names)} {name}"
        if name not in stored:
            stored = stored | {name: _accuracies(session, name, label, progress)}
            session.state.set_section("corruptions", stored)
        elif not _possible(stored[name], len(session.y)):
            raise InputError(
                f"`state` {session.state.path} is damaged: its accuracies on {name} are none of "
                f"{len(session.y)} images; remove it to start anew."
            )
        found[name] = tuple(stored[name])
    return CorruptionAccuracies(
        len(session.y), session.seed, float(measured.correct.mean()), found, measured.shard
    )


def _possible(shares, n):
    """Whether stored accuracies are shares of `n` images, one per severity."""
    return (
        isinstance(shares, list)
        and len(shares) == len(corruptions.SEVERITIES)
        and all(type(share) in (int, float) and 0 <= share <= 1 for share in shares)
        and all(abs(share * n - round(share * n)) < 1e-6 * max(n, 1) for share in shares)
    )


def _accuracies(session, name, label, progress):
    """The accuracies on one corruption, one per severity."""
    n, shares, done = len(session.y), [], 0
    for severity in corruptions.SEVERITIES:
        correct = 0
        for start in range(0, n, session.batch_size):
            rows = np.arange(start, min(start + session.batch_size, n))
            positions = rows if session.positions is None else session.positions[rows]
            corrupted = corruptions.corrupt(
                name, session.x[rows], severity, seed=session.seed, positions=positions
            )
            logits = session.predict(corrupted.numpy())
            correct += int(robustness.correct(logits, session.y[rows]).sum())
            done += len(rows)
            if progress is not None:
                progress(Progress(label, done, n * len(corruptions.SEVERITIES)))
        shares.append(correct / n)
    return shares
