"""`Split`: labels in memory, and images that are read by index."""

import numpy as np

from soar_tf.datasets import sampling
from soar_tf.datasets.images import (
    MEMORY_BYTES,
    FloatImages,
    Images,
    InMemory,
    Rows,
    as_float,
)
from soar_tf.errors import InputError
from soar_tf.validation import check_integer


class Split:
    """Images and labels of one split; the labels are in memory, the images need not be.

    Args:
        images: uint8 `[N, H, W, C]` with pixels 0-255, or float32 in [0, 1]; or
            `soar_tf.datasets.Images`, which are read when they are needed.
        labels: int64 `[N]`.
        shuffled: Whether the order is random already, so that the first examples are a sample.
        selection: How these examples were chosen from more; `None`: they are all.

    Attributes:
        source: The `soar_tf.datasets.Images`.
        labels: int64 `[N]`.
        resize_crop: Side in pixels of the random resized crops that training sees, or `None`.

    Raises:
        InputError: If types, ranks or lengths do not fit.

    Example:

    >>> import numpy as np
    >>> from soar_tf import datasets
    >>> split = datasets.Split(np.full((3, 2, 2, 1), 255, "uint8"), np.arange(3))
    >>> len(split.take(2)), float(split.float_images().max()), split.read([1]).shape
    (2, 1.0, (1, 2, 2, 1))
    """

    resize_crop = None

    def __init__(self, images, labels, shuffled=False, selection=None):
        if isinstance(images, np.ndarray) and images.ndim == 4:
            images = InMemory(images)
        if not isinstance(images, Images):
            raise InputError(
                "`images` must be a numpy array of shape [N, H, W, C]. "
                f"Received: shape {np.shape(images)}."
            )
        if images.dtype not in (np.uint8, np.float32):
            raise InputError(f"`images` must be uint8 or float32. Received: dtype {images.dtype}.")
        labels = np.asarray(labels)
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise InputError(
                f"`labels` must be integers of shape [{len(images)}], one per image. "
                f"Received: {labels.dtype} of shape {list(labels.shape)}."
            )
        self.source, self.labels = images, labels.astype(np.int64)
        self.shuffled, self.selection = bool(shuffled), selection
        self._memory = None

    def __len__(self):
        return len(self.labels)

    @property
    def images(self):
        """All images as one array `[N, H, W, C]`, which is read whole if it is not in memory."""
        if isinstance(self.source, InMemory):
            return self.source.array
        images, start = np.empty(self.source.shape, self.source.dtype), 0
        for part in self.source.chunks():
            images[start : start + len(part)] = part
            start += len(part)
        return images

    @property
    def image_shape(self):
        """`(H, W, C)`."""
        return self.source.shape[1:]

    def read(self, indices):
        """The images at `indices` (int `[n]`), `[n, H, W, C]`, uint8 or float32."""
        return self.source.read(np.asarray(indices, np.int64))

    def check(self):
        """Reads images until one cannot be read, whose name is in the error.

        Raises:
            InputError: If there is one.
        """
        self.source.check(np.arange(len(self)))

    def in_memory(self, limit=None):
        """This split with its images in memory, if they need at most `limit` bytes; else itself.

        They are read once: the result is remembered.

        Args:
            limit: Bytes; `None` for `soar_tf.datasets.images.MEMORY_BYTES`, 512 MiB.
        """
        limit = MEMORY_BYTES if limit is None else limit
        if isinstance(self.source, InMemory) or self.source.nbytes > limit:
            return self
        if self._memory is None:
            self._memory = self._with(InMemory(self.images), self.labels)
        return self._memory

    def take(self, n):
        """Returns a sample of `n` examples (all of them if there are fewer).

        The first ones if the order is random already, as in the data sets with a name of their own
        and in TensorFlow Datasets; else a stratified sample, in the order of the split, see
        `soar_tf.datasets.sampling.sample`. Either way the same examples each time; `selection`
        says which.
        """
        n = check_integer(n, "n", minimum=0)
        if n >= len(self):
            return self
        if self.shuffled:
            rows, how = np.arange(n), "the first in an order that is random"
        else:
            rows, how = sampling.sample(self.labels, n), "sampled by class"
        return self.select(rows, f"{n} of {len(self)}, {how}")

    def select(self, indices, selection=None):
        """Returns the examples at `indices`, in that order."""
        if isinstance(self.source, InMemory):
            images = InMemory(self.source.array[indices])
        else:
            images = Rows(self.source, np.arange(len(self))[indices])
        return self._with(images, self.labels[indices], selection or self.selection)

    def _with(self, images, labels, selection=None):
        split = Split(images, labels, self.shuffled, selection or self.selection)
        split.resize_crop = self.resize_crop
        return split

    def converted(self, images):
        """This split with other images (`Images`) in the place of its own, one for one."""
        return self._with(images, self.labels)

    def float_images(self):
        """Returns the images as a float32 array in [0, 1], `[N, H, W, C]`: all are read."""
        return as_float(self.images)

    def pixels(self, limit=None):
        """The images as float32 in [0, 1]: an array if it takes at most `limit` bytes.

        Else `soar_tf.datasets.images.FloatImages`, which read and convert what is indexed;
        evaluations take either.

        Args:
            limit: Bytes; `None` for `soar_tf.datasets.images.MEMORY_BYTES`.
        """
        limit = MEMORY_BYTES if limit is None else limit
        if self.source.nbytes * 4 // self.source.dtype.itemsize <= limit:
            return as_float(self.in_memory(limit).images)
        return FloatImages(self.source)

    def update_digest(self, digest, name):
        """Adds names, shapes, types, pixels and labels to a hash, image by image."""
        digest.update(f"{name} {self.source.shape} {self.source.dtype.str};".encode())
        for images in self.source.chunks():
            digest.update(np.ascontiguousarray(images).data)
        digest.update(f"{name} {self.labels.shape} {self.labels.dtype.str};".encode())
        digest.update(np.ascontiguousarray(self.labels).data)
