"""Images of any Python object with `__len__` and `__getitem__`, as grain, TFDS and PyTorch have."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from soar_tf.datasets.images import Images
from soar_tf.datasets.split import Split
from soar_tf.errors import InputError
from soar_tf.validation import check_integer

THREADS = 8


def from_sequence(source, labels=None, *, threads=THREADS, shuffled=False):
    """Makes a `Split` of an object that gives one example per index.

    Args:
        source: An object with `__len__` and `__getitem__` of ints from 0 on, such as a
            `tfds.data_source`, a grain data source or a PyTorch map-style data set. An example is
            `(image, label)` or a dictionary with `image` and `label`; the image uint8 or float32
            `[H, W, C]` or `[H, W]`, all of one shape, and the same each time. It is called from
            several threads at once.
        labels: int `[N]`; `None` reads every example once for its label.
        threads: Examples that are read at the same time; the result does not depend on it.
        shuffled: Whether the order is random, see `Split`.

    Returns:
        A `Split` that reads its images when they are needed.

    Raises:
        InputError: If an example is not of this form.

    Example:

    >>> import numpy as np
    >>> from soar_tf import datasets
    >>> examples = [(np.full((4, 4, 3), i, "uint8"), i % 2) for i in range(10)]
    >>> split = datasets.from_sequence(examples)
    >>> split.read([7])[0, 0, 0], split.labels[:3]
    (array([7, 7, 7], dtype=uint8), array([0, 1, 0]))
    """
    threads = check_integer(threads, "threads", minimum=1)
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise InputError(
            f"`source` must have `__len__` and `__getitem__`. Received: {type(source).__name__}."
        )
    if len(source) == 0:
        raise InputError("`source` must hold at least one example. Received: none.")
    images = SequenceImages(source, threads)
    return Split(images, images.labels() if labels is None else labels, shuffled)


class SequenceImages(Images):
    """The images of such an object, see `from_sequence`."""

    def __init__(self, source, threads=THREADS):
        self.source, self.threads = source, threads
        image, _ = _example(source[0], 0)
        if image.dtype not in (np.uint8, np.float32):
            raise InputError(
                "Images of `source` must be uint8 (0-255) or float32 (0-1). "
                f"Received: {image.dtype} at 0."
            )
        super().__init__((len(source), *image.shape), image.dtype)

    def read(self, indices):
        def image(index):
            found, _ = _example(self.source[index], index)
            if found.shape != self.shape[1:] or found.dtype != self.dtype:
                raise InputError(
                    f"Images of `source` must all be {self.dtype} of shape {self.shape[1:]}. "
                    f"Received: {found.dtype} of shape {found.shape} at {index}."
                )
            return found

        images = list(self._each(image, np.asarray(indices).tolist()))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), self.dtype)

    def labels(self):
        """The labels of all examples, int64 `[N]`; every example is read once."""
        labels = list(self._each(lambda i: _example(self.source[i], i)[1], range(len(self))))
        if any(
            np.shape(label) != () or np.asarray(label).dtype.kind not in "iu" for label in labels
        ):
            raise InputError("Labels of `source` must be integers, one per example.")
        return np.array(labels, np.int64)

    def _each(self, function, indices):
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(function, indices)


def _example(example, index):
    """Image `[H, W, C]` and label of an example; the label may be missing."""
    if isinstance(example, dict):
        image, label = example.get("image"), example.get("label")
    elif isinstance(example, tuple | list) and len(example) == 2:
        image, label = example
    else:
        image, label = None, None
    image = None if image is None else np.asarray(image)
    if image is None or image.ndim not in (2, 3):
        raise InputError(
            "Examples of `source` must be (image, label) or a dictionary with `image` [H, W, C] "
            f"and `label`. Received: {type(example).__name__} at {index}."
        )
    return (image[..., None] if image.ndim == 2 else image), label
