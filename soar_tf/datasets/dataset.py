"""The two containers, `Split` and `Dataset`, and what every source does to fill them."""

import dataclasses
import hashlib

import numpy as np

from soar_tf.errors import InputError
from soar_tf.validation import check_integer

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one split, held in memory.

    Args:
        images: uint8 `[N, H, W, C]` with pixels 0-255, or float32 in [0, 1].
        labels: int64 `[N]`.

    Raises:
        InputError: If types, ranks or lengths do not fit.

    Example:

    >>> import numpy as np
    >>> from soar_tf import datasets
    >>> split = datasets.Split(np.full((3, 2, 2, 1), 255, "uint8"), np.arange(3))
    >>> len(split.take(2)), float(split.float_images().max())
    (2, 1.0)
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if not isinstance(self.images, np.ndarray) or self.images.ndim != 4:
            raise InputError(
                "`images` must be a numpy array of shape [N, H, W, C]. "
                f"Received: shape {np.shape(self.images)}."
            )
        if self.images.dtype not in (np.uint8, np.float32):
            raise InputError(
                f"`images` must be uint8 or float32. Received: dtype {self.images.dtype}."
            )
        labels = np.asarray(self.labels)
        if labels.shape != self.images.shape[:1] or labels.dtype.kind not in "iu":
            raise InputError(
                f"`labels` must be integers of shape [{len(self.images)}], one per image. "
                f"Received: {labels.dtype} of shape {list(labels.shape)}."
            )
        object.__setattr__(self, "labels", labels.astype(np.int64))

    def __len__(self):
        return len(self.labels)

    def take(self, n):
        """Returns the first `n` examples (all of them if there are fewer)."""
        n = check_integer(n, "n", minimum=0)
        return Split(self.images[:n], self.labels[:n])

    def select(self, indices):
        """Returns the examples at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])

    def float_images(self):
        """Returns the images as float32 in [0, 1], `[N, H, W, C]`."""
        if self.images.dtype == np.float32:
            return self.images
        return self.images.astype(np.float32) / np.float32(255)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """An image-classification data set in memory.

    Args:
        name: The name it was loaded by.
        num_classes: Number of classes; labels are 0 to `num_classes - 1`.
        image_shape: `(H, W, C)`.
        splits: Maps `"train"`, `"validation"`, `"test"` (those that exist) to a `Split`.
        class_names: One name per class, or `None` if the source has none.
        augment: Whether training on it should augment by default.
        provenance: One or two sentences: where the pixels come from, how splits were made.

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

    def __post_init__(self):
        for name, split in self.splits.items():
            if split.images.shape[1:] != tuple(self.image_shape):
                raise InputError(
                    f"All images of data set {self.name!r} must have shape {self.image_shape}. "
                    f"Received: {split.images.shape[1:]} in split {name!r}."
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
        """Returns the sha256 (hex) over names, shapes, types, pixels and labels of all splits."""
        digest = hashlib.sha256()
        for name in sorted(self.splits):
            for array in (self.splits[name].images, self.splits[name].labels):
                digest.update(f"{name} {array.shape} {array.dtype.str};".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def stratified(labels, fraction, seed, total=None):
    """Chooses about `fraction` of the examples, the same share of every class.

    `RandomState` is used because numpy guarantees that its stream never changes.

    Args:
        labels: int `[N]`.
        fraction: Share to choose, in (0, 1); at least one example of every class that has two.
        seed: Int that fixes the choice.
        total: Number of examples to choose instead, less than N: each class gets its share of it,
            rounded down, and those with the largest remainders one more.

    Returns:
        bool `[N]`: true where chosen.
    """
    chosen = np.zeros(len(labels), bool)
    random = np.random.RandomState(seed % 2**32)
    classes, sizes = np.unique(labels, return_counts=True)
    if total is None:
        counts = [min(max(1, round(fraction * n)), n - 1) if n > 1 else 0 for n in sizes]
    else:
        shares = total * sizes / len(labels)
        counts = np.floor(shares).astype(int)
        counts[np.argsort(counts - shares, kind="stable")[: total - counts.sum()]] += 1
    for label, count in zip(classes, counts, strict=True):
        members = random.permutation(np.flatnonzero(labels == label))
        chosen[members[:count]] = True
    return chosen


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
    splits, provenance = dict(dataset.splits), dataset.provenance
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
        provenance += (
            f" Validation: {chosen.sum()} of {len(train)} training images, stratified by class, "
            f"split seed {seed}."
        )
    kept = {name: splits[name] for name in SPLITS if name in splits and name in wanted}
    if not kept:
        raise InputError(
            f"`splits` must name splits that data set {dataset.name!r} has: "
            f"{', '.join(available)}. Received: {', '.join(wanted)}."
        )
    return dataclasses.replace(dataset, splits=kept, provenance=provenance)


def _carves(fraction, count):
    return fraction > 0 if count is None else count > 0


def resize(images, size):
    """Resizes `[N, H, W, C]` to `size` (bilinear, antialiased), keeping uint8 or float32."""
    import tensorflow as tf

    if images.shape[1:3] == tuple(size):
        return images
    parts = []
    for start in range(0, len(images), 1000):  # bounds the float32 copies
        part = tf.image.resize(images[start : start + 1000], size, antialias=True).numpy()
        if images.dtype == np.uint8:
            part = np.clip(np.rint(part), 0, 255)
        parts.append(part.astype(images.dtype))
    return np.concatenate(parts)
