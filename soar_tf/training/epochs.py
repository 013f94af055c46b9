"""How many steps an epoch of `fit` has."""

import inspect
import math

import keras
import tensorflow as tf


def fit_arguments(*args, **kwargs):
    """The arguments of `keras.Model.fit` by name, whatever came by position."""
    given = inspect.signature(keras.Model.fit).bind_partial(None, *args, **kwargs).arguments
    given.pop("self")
    return given


def steps_per_epoch(args, kwargs):
    """Steps of an epoch, from the arguments of `keras.Model.fit`; `None` if they do not say.

    Args:
        args, kwargs: As `keras.Model.fit` takes them.
    """
    given = fit_arguments(*args, **kwargs)
    if given.get("steps_per_epoch") is not None:
        return int(given["steps_per_epoch"])
    x = given.get("x")
    if isinstance(x, tf.data.Dataset):
        count = int(x.cardinality())
        return count if count > 0 else None
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    if not hasattr(x, "__len__"):
        return None
    count = math.floor(len(x) * (1.0 - (given.get("validation_split") or 0.0)))
    return math.ceil(count / (given.get("batch_size") or 32))
