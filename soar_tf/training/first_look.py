"""What `fit` looks at before its first step: some of the data, and what the network makes of it."""

import warnings
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models import probe
from soar_tf.models.inference import as_logits_fn
from soar_tf.second_order.check import check_second_order
from soar_tf.training import losses
from soar_tf.validation import check_pixels

# What a training goes on with after a word: the network may be meant so.
_WORTH_A_WARNING = ("random", "misleading_gradient", "scale")


def sample(x, y=None):
    """Some of the data that `fit` was given, in memory.

    Args:
        x: As `keras.Model.fit` takes it.
        y: As `keras.Model.fit` takes it.

    Returns:
        `(x, y)` as arrays, some or all of the data; `(None, None)` for what can only be read once,
        such as a generator, or has several inputs.
    """
    x = getattr(x, "own_part", x)  # see `strategies.distributed`
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x.take(1)), None)
        parts = [] if batch is None else tf.nest.flatten(batch)
        if len(parts) > 1 and all(part.shape.rank == 0 for part in parts[1:]):
            raise InputError("`x` must be a tf.data.Dataset of batches; call .batch on it.")
        return (None, None) if batch is None else _parts(batch)
    if isinstance(x, keras.utils.PyDataset):
        return _parts(x[0])
    if isinstance(x, (np.ndarray, tf.Tensor)):
        return np.asarray(x), None if y is None else np.asarray(y)
    return None, None


def _parts(batch):
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    x = only_input(x)
    if not isinstance(x, (np.ndarray, tf.Tensor)):
        return None, None
    return np.asarray(x), None if y is None else np.asarray(y)


def only_input(x):
    """The one tensor of a batch's images, which may come as a dictionary or list of one entry.

    Raises:
        InputError: If there are several.
    """
    if not isinstance(x, (Mapping, list, tuple)):
        return x
    if len(x) != 1:
        kind = f"a {type(x).__name__} of {len(x)}"
        if isinstance(x, Mapping):
            kind = f"a dictionary of {', '.join(map(str, x))}"
        raise InputError(f"`x` must hold one tensor of images. Received {kind}.")
    return next(iter(x.values() if isinstance(x, Mapping) else x))


def look(model, x, y, validation_data):
    """The look before a model's first `fit`; later ones go on with the same network.

    Args:
        model: The compiled `RobustModel`.
        x: As `keras.Model.fit` takes it.
        y: As `keras.Model.fit` takes it.
        validation_data: As `keras.Model.fit` takes it.

    Raises:
        InputError: See `check`; or if the method needs second derivatives that TensorFlow does not
            have for one of the network's layers.
    """
    if not model.compiled:
        raise InputError("`fit` needs a compiled model; call compile first.")
    for name, data in (("x", x), ("validation_data", validation_data)):
        if hasattr(data, "float_images"):
            raise InputError(
                f"`{name}` must be as Keras takes it; of a split, give split.float_images() and "
                "split.labels."
            )
    if not model.network.trainable_weights:
        raise InputError(
            f"`network` {model.network.name!r} must have weights to train; set trainable=True."
        )
    known_x, known_y = (None, None) if model.looked else sample(x, y)
    if known_y is not None and len(known_x) != len(known_y):
        raise InputError(
            f"`y` must hold a label for each of {len(known_x)} images. Received: {len(known_y)}."
        )
    if model.method.second_order:
        unknown = known_x is not None and not getattr(model.network, "inputs", None)
        two = known_x[:2].astype("float32") if unknown else None
        xla = bool(model.jit_compile)
        check_second_order(model.network, sample=two, quick=True, xla=xla).raise_if_wrong()
    if known_x is not None:
        check(model.network, model.method, model.loss, known_x, known_y)
        model.looked = True
    _check_validation(validation_data)


def check(network, method, loss, x, y):
    """Refuses data and networks that training makes no sense with, and warns of doubtful ones.

    Args:
        network: The `keras.Model`.
        method: The `soar_tf.methods.Method`.
        loss: The compiled loss, as `compile` took it.
        x: Images `[N, ...]`.
        y: Labels, or `None`.

    Raises:
        InputError: For no labels, labels that the loss cannot take, or a network that the probe
            calls unusable, that is random under a method of second order, or without a gradient
            under a method that needs one.
    """
    check_pixels(x[: min(len(x), 1024)], "x")
    classifies = losses.is_cross_entropy(loss)
    if classifies:
        _check_labels(y, network)
        if _mixed(y):
            rule = "`y` must hold one class per image"
            method.check_mixed_labels(rule, "labels with shares of several classes")
    try:
        found = probe.examine(
            as_logits_fn(network),
            x,
            y,
            loss_fn=losses.per_example(loss),
            network=network,
            logits=classifies,
        )
    except (tf.errors.InvalidArgumentError, TypeError) as error:
        reason = str(error).splitlines()[0].partition("}} ")
        raise InputError(
            f"`loss` cannot be computed of the network's outputs and labels of shape {y.shape}: "
            f"{reason[2] or reason[0]}"
        ) from None
    refused = []
    if method.second_order:
        refused.append("random")
    if method.needs_input_gradient:
        refused.append("no_gradient")
    found.raise_if_unusable(*refused)
    for finding in found.findings:
        if finding.name in _WORTH_A_WARNING:
            warnings.warn(finding.message, stacklevel=4)


def _check_validation(validation_data):
    """Refuses validation images outside [0, 1]; see `keras.Model.fit`."""
    if isinstance(validation_data, (tuple, list)) and validation_data:
        images = validation_data[0]
        if len(validation_data) == 1:
            raise InputError("`validation_data` must hold labels, too: (x, y).")
        if isinstance(images, np.ndarray):
            check_pixels(images, "validation_data")


def _check_labels(y, network):
    if y is None:
        raise InputError("`y` must hold a label for each image. Received: None.")
    classes = (getattr(network, "output_shape", None) or (None, None))[-1]
    if y.ndim == 2 and y.shape[1] > 1:
        return  # one label's share for each class
    if y.dtype.kind not in "iufb" or (y.dtype.kind == "f" and (y != np.round(y)).any()):
        raise InputError(
            f"`y` must hold whole numbers, one class an image. Received: {_example(y)}."
        )
    if y.min() < 0 or (classes is not None and y.max() >= classes):
        limit = "" if classes is None else f" to {classes - 1}, the network's classes"
        raise InputError(
            f"`y` must hold labels from 0{limit}. Received labels from {y.min():g} to {y.max():g}."
        )


def _mixed(y):
    """Whether labels are shares of more than one class; smoothed ones, all but one equal, are not.

    Of two classes nobody can tell.
    """
    if y.ndim != 2 or y.shape[1] < 3:
        return False
    shares = np.sort(y.astype("float64"), axis=1)
    return bool((shares[:, -2] - shares[:, 0] > 1e-6).any())


def _example(y):
    wrong = y if y.dtype.kind not in "iufb" else y[y != np.round(y)]
    return repr(np.ravel(wrong)[0].item())
