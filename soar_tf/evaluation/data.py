"""Validation data as users have it, as arrays."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from soar_tf.datasets import Split
from soar_tf.datasets.images import floats
from soar_tf.errors import InputError
from soar_tf.validation import check_integer, check_pixels


def arrays(data, limit=None):
    """Images and labels of validation data.

    Args:
        data: Arrays `(x, y)`, a `tf.data.Dataset` of batches `(x, y)`, or a
            `soar_tf.datasets.Split`. Labels are integers `[N]` or `[N, 1]`, or one-hot `[N, C]`.
        limit: Number of examples, the first ones; `None` takes all.

    Returns:
        `(x float32 [N, ...], y int [N])`; of a split that is not in memory, x are
        `soar_tf.datasets.images.FloatImages`.

    Raises:
        InputError: If `data` is none of these, is empty, or holds pixels outside [0, 1].
    """
    if limit is not None:
        limit = check_integer(limit, "limit", minimum=1)
    x, y = _images_and_labels(data, limit)
    if x.shape[:1] != y.shape[:1]:
        raise InputError(
            f"`data` must hold one label per image. Received shapes {x.shape} and {y.shape}."
        )
    if limit is not None and limit < len(x):
        x, y = x[:limit], y[:limit]
    check_pixels(x, "data")
    if y.ndim == 2:
        y = y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1)
    return x, y


def _images_and_labels(data, limit):
    if isinstance(data, Split):
        data = data if limit is None else data.take(limit)
        return data.pixels(), data.labels
    if isinstance(data, tf.data.Dataset):
        return _collected(data, limit)
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        try:
            return floats(data[0]), np.asarray(data[1])
        except (TypeError, ValueError):
            pass
    raise InputError(
        "`data` must be arrays (x, y), a tf.data.Dataset of batches (x, y) or a "
        f"soar_tf.datasets.Split. Received: {type(data).__name__}."
    )


def _without_names(data, spec):
    """The data set with its images' tensor instead of a dictionary of one entry."""
    images = spec[0] if isinstance(spec, tuple) else spec
    if not isinstance(spec, tuple) or len(images) != 1:
        raise InputError(
            "`data` must be a tf.data.Dataset of batches (x, y) with one tensor of images. "
            f"Received a dictionary of {', '.join(map(str, images))}; map it to (x, y)."
        )
    (name,) = images
    data = data.map(lambda x, *labels: (x[name], *labels))
    return data, data.element_spec


def _collected(data, limit):
    spec = data.element_spec
    if isinstance(spec, Mapping) or (isinstance(spec, tuple) and isinstance(spec[0], Mapping)):
        data, spec = _without_names(data, spec)
    if not isinstance(spec, tuple) or len(spec) < 2 or spec[1].shape.rank == 0:
        raise InputError("`data` must be a tf.data.Dataset of batches (x, y); call .batch on it.")
    if limit is None and data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise InputError("`data` repeats without end; give a `limit`.")
    images, labels, count = [], [], 0
    for x, y, *_ in data:
        images.append(np.asarray(x, np.float32))
        labels.append(np.asarray(y))
        count += len(images[-1])
        if limit is not None and count >= limit:
            break
    if not images:
        raise InputError("`data` must hold at least one batch.")
    return np.concatenate(images), np.concatenate(labels)
