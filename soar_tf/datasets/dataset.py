"""`Dataset`, and what every source does to fill it."""

import dataclasses
import hashlib

import numpy as np

from soar_tf.datasets.sampling import stratified
from soar_tf.datasets.split import Split
from soar_tf.errors import InputError

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """An image-classification data set.

    Args:
        name: The name it was loaded by.
        num_classes: Number of classes; labels are 0 to `num_classes - 1`.
        image_shape: `(H, W, C)`.
        splits: Maps `"train"`, `"validation"`, `"test"` (those that exist) to a `Split`.
        class_names: One name per class, or `None` if the source has none.
        augment: Whether training on it should augment by default.
        provenance: One or two sentences: where the pixels come from, how splits were made.
        reading: What was read as what, lines of text; empty for sets that are always the same.

    Raises:
        InputError: If a label is no class, or splits differ in image shape.

    Example:

    >>> from soar_tf import datasets
    >>> digits = datasets.load("digits")
    >>> digits.image_shape, digits.num_classes, len(digits["test"])
    ((8, 8, 1), 10, 400)
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    splits: dict[str, Split]
    class_names: tuple[str, ...] | None = None
    augment: bool = False
    provenance: str = ""
    reading: tuple[str, ...] = ()

    def __post_init__(self):
        for name, split in self.splits.items():
            if split.image_shape != tuple(self.image_shape):
                raise InputError(
                    f"All images of data set {self.name!r} must have shape {self.image_shape}. "
                    f"Received: {split.image_shape} in split {name!r}."
                )
            low, high = split.labels.min(initial=0), split.labels.max(initial=0)
            if low < 0 or high >= self.num_classes:
                raise InputError(
                    f"Labels of data set {self.name!r} must lie in 0..{self.num_classes - 1}. "
                    f"Received: {low if low < 0 else high} in split {name!r}."
                )

    def __getitem__(self, split):
        if split not in self.splits:
            raise InputError(
                f"Data set {self.name!r} has no split {split!r} here. "
                f"Available: {', '.join(self.splits) or 'none'}."
            )
        return self.splits[split]

    def fingerprint(self):
        """Returns a fingerprint of all splits, equal on every host.

        Of images in memory it is the sha256 (hex) over names, shapes, types, pixels and labels. Of
        images that are read when they are needed it is `files:` and a sha256 over what is known
        without reading them whole, and labels: of a folder, each file's path inside it, its size
        and its first 4,096 bytes, and how it is turned into an image; of mapped arrays and of
        records, see `soar_tf.datasets.npz` and `soar_tf.datasets.records`. So a change behind the
        first 4,096 bytes of a file that leaves its size as it was is not seen.
        """
        digest, known = hashlib.sha256(), False
        for name in sorted(self.splits):
            split = self.splits[name]
            if (identity := split.source.identity()) is None:
                split.update_digest(digest, name)
                continue
            known = True
            digest.update(f"{name} {identity};".encode())
            digest.update(split.labels.tobytes())
        return f"files:{digest.hexdigest()}" if known else digest.hexdigest()

    def pixel_fingerprint(self):
        """Returns the sha256 (hex) over names, shapes, types, pixels and labels of all splits."""
        digest = hashlib.sha256()
        for name in sorted(self.splits):
            self.splits[name].update_digest(digest, name)
        return digest.hexdigest()

    def has_fingerprint(self, stored):
        """Whether `stored` is a fingerprint of these images and labels.

        Versions that held all images in memory took the pixels' for every data set: with one of
        theirs all images are read once.
        """
        if stored == self.fingerprint():
            return True
        old = isinstance(stored, str) and not stored.startswith("files:")
        return old and stored == self.pixel_fingerprint()


def needed(wanted, available):
    """Which splits of a source to read so that `finish` can give the wanted ones."""
    carved = "validation" in wanted and "validation" not in available
    return tuple(
        name
        for name in SPLITS
        if name in available and (name in wanted or (carved and name == "train"))
    )


def finish(dataset, available, wanted, fraction, seed, count=None):
    """Carves validation out of train where the source has none; keeps the wanted splits.

    The carve happens even if only train is wanted, so that train never holds validation images.

    Args:
        dataset: The `Dataset` with the source's own splits.
        available: Names of all splits that the source has, read or not.
        wanted: Names of the splits to return.
        fraction: Share of train that becomes validation, in [0, 1).
        seed: Int that fixes the carve.
        count: Number of images of train that become validation instead; `None`: by `fraction`.

    Returns:
        The `Dataset` with those wanted splits that exist.

    Raises:
        InputError: If none of them exists, or if `count` cannot be carved out.
    """
    splits, provenance, reading = dict(dataset.splits), dataset.provenance, dataset.reading
    if count and "validation" in available:
        raise InputError(
            f"`validation_images` must be 0 or None for data set {dataset.name!r}, which has a "
            f"validation split. Received: {count}."
        )
    if "validation" not in available and "train" in splits and _carves(fraction, count):
        train = splits["train"]
        if count is not None and count >= len(train):
            raise InputError(
                f"`validation_images` must be fewer than the {len(train)} training images of data "
                f"set {dataset.name!r}. Received: {count}."
            )
        chosen = stratified(train.labels, fraction, seed, count)
        splits["train"] = train.select(np.flatnonzero(~chosen))
        if chosen.any():
            splits["validation"] = train.select(np.flatnonzero(chosen))
        carved = (
            f"Validation: {chosen.sum()} of {len(train)} training images, stratified by class, "
            f"split seed {seed}."
        )
        provenance, reading = f"{provenance} {carved}", (*reading, carved)
    kept = {name: splits[name] for name in SPLITS if name in splits and name in wanted}
    if not kept:
        raise InputError(
            f"`splits` must name splits that data set {dataset.name!r} has: "
            f"{', '.join(available)}. Received: {', '.join(wanted)}."
        )
    return dataclasses.replace(dataset, splits=kept, provenance=provenance, reading=reading)


def _carves(fraction, count):
    return fraction > 0 if count is None else count > 0
