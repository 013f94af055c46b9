"""Images by index: where the pixels of a split come from, in memory or read when they are needed.

Whatever the source, an image is a pure function of its index, so that batches depend neither on
the number of reader threads nor on what was read before.
"""

import functools
import hashlib
import math

import numpy as np

from soar_tf.errors import InputError

MEMORY_BYTES = 512 * 2**20
"""Splits whose images take at most so many bytes are held in memory; CIFAR-10 takes 150 MB."""

CHUNK = 256
"""Images that are read together where a whole split is gone through."""


class Images:
    """N images of one shape that are read by index.

    Subclasses implement `read`; those whose images TensorFlow can decode by itself set `in_graph`
    and implement `fetched`, `load` and `whole`, too: pipelines fetch by batch and decode by image.

    Args:
        shape: `(N, H, W, C)`.
        dtype: uint8 (pixels 0-255) or float32 (pixels in [0, 1]).

    Attributes:
        in_graph: Whether `load` and `whole` have something to do, in TensorFlow's operations.

    Example:

    >>> import numpy as np
    >>> from soar_tf.datasets.images import InMemory
    >>> images = InMemory(np.arange(12, dtype="uint8").reshape(3, 2, 2, 1))
    >>> images.read([2, 0])[:, 0, 0, 0]
    array([8, 0], dtype=uint8)
    """

    in_graph = False

    def __init__(self, shape, dtype=np.uint8):
        self.shape, self.dtype = tuple(int(side) for side in shape), np.dtype(dtype)

    def __len__(self):
        return self.shape[0]

    @property
    def nbytes(self):
        """Bytes of all images in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, indices):
        """Reads images.

        Args:
            indices: int `[n]`.

        Returns:
            A NumPy array `[n, H, W, C]`. Several threads may read at once.
        """
        raise NotImplementedError

    def fetched(self, indices):
        """What `load` and `whole` need of the images at an int64 tensor `[n]`, inside a graph:

        a tuple of tensors `[n, ...]`, here of the images themselves.
        """
        import tensorflow as tf

        # Not a `py_function`, which would move the pixels through an eager context.
        images = tf.numpy_function(self.read, [indices], tf.as_dtype(self.dtype), stateful=False)
        return (tf.ensure_shape(images, (None, *self.shape[1:])),)

    def load(self, *fetched):
        """One image `[H, W, C]` from its part of what `fetched` gave, inside a graph."""
        return self.whole(*fetched)

    def whole(self, *fetched):
        """The same before it is cropped, `[h, w, C]`, of any size."""
        (image,) = fetched
        return image

    def batch(self, indices):
        """The images at an int64 tensor `[n]`, `[n, H, W, C]`, inside a graph."""
        import tensorflow as tf

        fetched = self.fetched(indices)
        if not self.in_graph:
            return fetched[0]
        spec = tf.TensorSpec(self.shape[1:], tf.as_dtype(self.dtype))
        return tf.map_fn(lambda parts: self.load(*parts), fetched, fn_output_signature=spec)

    def check(self, indices):
        """Raises an error with the name of the first image of those that cannot be read.

        Raises:
            InputError: If there is one.
        """

    def chunks(self):
        """Goes through the images in order: yields arrays `[n, H, W, C]`."""
        for start in range(0, len(self), CHUNK):
            yield self.read(np.arange(start, min(start + CHUNK, len(self))))

    def identity(self):
        """Text that says which images these are without reading their pixels; `None`: unknown."""
        return None


class InMemory(Images):
    """The images of an array `[N, H, W, C]`."""

    def __init__(self, array):
        super().__init__(array.shape, array.dtype)
        self.array = array

    def read(self, indices):
        return self.array[np.asarray(indices)]


class Rows(Images):
    """Those images of others that are at `rows`, in that order."""

    def __init__(self, images, rows):
        rows = np.asarray(rows, np.int64)
        if isinstance(images, Rows):
            images, rows = images.images, images.rows[rows]
        super().__init__((len(rows), *images.shape[1:]), images.dtype)
        self.images, self.rows, self.in_graph = images, rows, images.in_graph

    def read(self, indices):
        return self.images.read(self.rows[np.asarray(indices)])

    def check(self, indices):
        self.images.check(self.rows[np.asarray(indices)])

    def fetched(self, indices):
        import tensorflow as tf

        return self.images.fetched(tf.gather(self._tensor, indices))

    def load(self, *fetched):
        return self.images.load(*fetched)

    def whole(self, *fetched):
        return self.images.whole(*fetched)

    @functools.cached_property
    def _tensor(self):
        return host_tensor(self.rows)

    def identity(self):
        whole = self.images.identity()
        return whole and f"{whole} rows {hashlib.sha256(self.rows.tobytes()).hexdigest()}"


class Converted(Images):
    """Other images after a function.

    Args:
        images: The others.
        function: `[n, h, w, c] -> [n, H, W, C]`, of TensorFlow's operations, image by image.
        shape: `(H, W, C)` of the results.
        name: What the function is called in `identity`.
        crops: Whether `whole` is the image before the function.
    """

    def __init__(self, images, function, shape, name, crops=False):
        super().__init__((len(images), *shape), images.dtype)
        self.images, self.function, self.name, self.crops = images, function, name, crops
        self.in_graph = True

    def read(self, indices):
        indices = np.asarray(indices)
        parts = [
            self.function(self.images.read(indices[start : start + CHUNK])).numpy()
            for start in range(0, len(indices), CHUNK)  # bounds the float32 copies
        ]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)

    def check(self, indices):
        self.images.check(indices)

    def fetched(self, indices):
        return self.images.fetched(indices)

    def load(self, *fetched):
        import tensorflow as tf

        return tf.ensure_shape(self.function(self.images.load(*fetched)[None])[0], self.shape[1:])

    def whole(self, *fetched):
        whole = self.images.whole(*fetched)
        return whole if self.crops else self.function(whole[None])[0]

    def identity(self):
        whole = self.images.identity()
        return whole and f"{whole} {self.name}"


class Mapped(Images):
    """An array on disk `[N, H, W]` or `[N, H, W, C]`, of which only what is read gets into memory.

    Args:
        array: The `numpy.memmap`, uint8 or float32.
        name: What it is called in errors.
        identity: See `identity`.
    """

    def __init__(self, array, name, identity):
        array = array[..., None] if array.ndim == 3 else array
        super().__init__(array.shape, array.dtype)
        self.array, self._name, self._identity = array, name, identity

    def read(self, indices):
        images = np.asarray(self.array[np.asarray(indices)])
        if self.dtype == np.float32 and images.size:
            low, high = float(images.min()), float(images.max())
            if not (low >= 0 and high <= 1):
                raise InputError(
                    f"{self._name} must have float pixels in [0, 1]. "
                    f"Received: minimum {low:g}, maximum {high:g}."
                )
        return images

    def identity(self):
        return self._identity


class FloatImages:
    """A split's images as float32 in [0, 1], converted only where they are indexed.

    For what goes through images batch by batch. `numpy.asarray` reads them all.

    Args:
        images: The `Images`.
    """

    dtype, ndim = np.dtype(np.float32), 4

    def __init__(self, images):
        self.images = images
        self.shape = images.shape
        self.size = math.prod(images.shape)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        if isinstance(key, slice):
            return as_float(self.images.read(np.arange(*key.indices(len(self)))))
        key = np.asarray(key)
        rows = np.flatnonzero(key) if key.dtype == bool else key
        if rows.ndim == 0:
            return as_float(self.images.read(rows[None]))[0]
        return as_float(self.images.read(rows))

    def chunks(self):
        """Goes through the images in order: yields arrays `[n, H, W, C]`."""
        return map(as_float, self.images.chunks())

    def __array__(self, dtype=None, copy=None):
        array = self[:]
        return array if dtype is None else array.astype(dtype, copy=False)

    def min(self):
        """The smallest value that a pixel can have."""
        return 0.0

    def max(self):
        """The largest value that a pixel can have; files' pixels are checked when they are read."""
        return 1.0


def host_tensor(array):
    """An array as a tensor in the host's memory, which graphs capture without copying it."""
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(array)


def as_float(images):
    """uint8 images as float32 in [0, 1]; float32 ones as they are."""
    return images if images.dtype == np.float32 else images.astype(np.float32) / np.float32(255)


def floats(x, argument="x"):
    """Images as float32: an array, or the `FloatImages` that were given.

    Raises:
        InputError: If `x` is anything but an array `[N, ...]` of real numbers.
    """
    if isinstance(x, FloatImages):
        return x
    try:
        array = np.asarray(x)
        if array.dtype.kind not in "biufV" or array.ndim < 2:  # V: bfloat16, which NumPy lacks
            raise ValueError
        return array.astype(np.float32, copy=False)
    except (TypeError, ValueError):
        what = f"a value of type {type(x).__name__}"
        if isinstance(x, np.ndarray):
            what = f"an array of type {x.dtype} and shape {x.shape}"
        raise InputError(
            f"`{argument}` must be an array of real numbers, [N, ...]. Received: {what}."
        ) from None


def rows_of(x, rows):
    """The images at `rows` (int `[n]`) of what `floats` gives; `FloatImages` are not read."""
    return FloatImages(Rows(x.images, rows)) if isinstance(x, FloatImages) else x[rows]
