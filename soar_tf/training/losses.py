"""A compiled Keras loss as the per-example function that methods need."""

import inspect

import keras
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.ops import losses
from soar_tf.validation import check_number

_AVERAGES = (None, "none", "mean", "sum_over_batch_size")


def default_loss(label_smoothing=0.0):
    """Cross-entropy of integer labels from logits, what `compile` uses if no loss is given."""
    if label_smoothing:
        return SmoothedCrossentropy(label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@keras.saving.register_keras_serializable(package="soar_tf")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy from logits with label smoothing, for integer labels or shares of the classes.

    Keras's own label smoothing takes one-hot labels only. Every method's per-example loss, and so
    what attacks inside training climb, is the smoothed one.

    Args:
        label_smoothing: Share s of the label's weight, in [0, 1], that is spread over all classes:
            the target is 1 - s + s/C for the label and s/C for every other class.
        name: The loss's name.
        reduction, dtype: See `keras.losses.Loss`.

    Example:

    >>> import numpy as np
    >>> from soar_tf.training import SmoothedCrossentropy
    >>> loss = SmoothedCrossentropy(0.1)
    >>> round(float(loss(np.array([0]), np.zeros((1, 2)))), 4)
    0.6931
    """

    def __init__(
        self,
        label_smoothing=0.1,
        name="smoothed_crossentropy",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.label_smoothing = check_number(
            label_smoothing, "label_smoothing", minimum=0.0, maximum=1.0
        )

    def call(self, y_true, y_pred):
        y_true = tf.convert_to_tensor(y_true)
        if y_true.shape.rank == 2 and y_true.shape[1] == y_pred.shape[1]:
            shares = tf.cast(y_true, y_pred.dtype)
        else:
            classes = losses.class_indices(y_true, y_pred)
            shares = tf.one_hot(classes, y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            shares,
            y_pred,
            from_logits=True,
            label_smoothing=self.label_smoothing,
        )

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="soar_tf")
def right_class(y_true, y_pred):
    """Whether each example's class is the most probable one, float `[B]`.

    Args:
        y_true: Classes `[B]` or `[B, 1]`, or shares of the classes `[B, C]`, of which the largest
            counts.
        y_pred: Logits `[B, C]`.
    """
    predicted = tf.argmax(y_pred, axis=1)
    return tf.cast(losses.class_indices(y_true, y_pred) == predicted, tf.float32)


def class_accuracy():
    """Keras's `"accuracy"` for labels that change their form: mixed ones, then plain ones."""
    return keras.metrics.MeanMetricWrapper(right_class, name="accuracy")


def per_example(loss):
    """Turns a Keras loss into `(y, outputs [B, ...]) -> [B]`, in float32.

    Args:
        loss: A `keras.losses.Loss`, a name or a callable `(y_true, y_pred)`, as `compile` takes.

    Returns:
        The callable.

    The labels of Keras's sparse cross-entropy may also be one-hot, or shares of the classes.

    Raises:
        InputError: If the loss expects probabilities, for networks here give logits; or has a
            reduction or ignored class that the methods do not know.

    Example:

    >>> import keras
    >>> from soar_tf.training.losses import per_example
    >>> loss_fn = per_example(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> loss_fn([0, 1], [[0.0, 0.0], [0.0, 0.0]]).shape
    TensorShape([2])
    """
    if isinstance(loss, (dict, list, tuple)):
        raise InputError(
            "`loss` must be one loss, for a network with one output. "
            f"Received: {type(loss).__name__}."
        )
    resolved = keras.losses.get(loss)
    if not isinstance(resolved, keras.losses.Loss):
        name = getattr(resolved, "__name__", str(resolved))
        if _wants_probabilities(resolved):
            raise InputError(_from_logits(name))
        return _reduce_to_batch(resolved)
    config = resolved.get_config()
    if config.get("from_logits") is False:
        raise InputError(_from_logits(type(resolved).__name__))
    _check_options(resolved, config)

    def unreduced(y, outputs):
        if takes_shares(resolved, y, outputs):
            y = tf.cast(y, outputs.dtype)
            return keras.losses.categorical_crossentropy(y, outputs, from_logits=True)
        return resolved.call(y, outputs)

    return _reduce_to_batch(unreduced)


def takes_shares(loss, y, outputs):
    """Whether Keras's sparse cross-entropy gets one-hot labels, or shares of the classes.

    Args:
        loss: A loss as `compile` takes it, or `None` for the default.
        y: Labels, a tensor.
        outputs: Logits `[B, C]`.
    """
    if y is None or y.shape.rank != 2 or outputs.shape.rank != 2 or y.shape[1] in (None, 1):
        return False
    sparse = keras.losses.SparseCategoricalCrossentropy
    return loss is None or isinstance(keras.losses.get(loss), sparse)


def is_cross_entropy(loss):
    """Whether a compiled loss is a cross-entropy, so that the network's outputs are logits."""
    if loss is None:
        return True
    resolved = keras.losses.get(loss)
    name = getattr(resolved, "__name__", type(resolved).__name__)
    return "crossentropy" in name.lower().replace("_", "")


def _wants_probabilities(function):
    """Whether a loss function, such as Keras's, takes probabilities unless it is told otherwise."""
    try:
        parameter = inspect.signature(function).parameters.get("from_logits")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.default is False


def _check_options(loss, config):
    """Refuses what Keras would do with the loss and a robust train step does not."""
    name = type(loss).__name__
    if config.get("ignore_class") is not None:
        raise InputError(
            f"`loss` {name} must not ignore a class; leave its examples out, or give them a "
            f"sample weight of 0. Received: ignore_class={config['ignore_class']}."
        )
    if type(loss).__call__ is not keras.losses.Loss.__call__:
        raise InputError(
            f"`loss` {name} must compute its values in `call`, one per example. "
            "Received: a class with a `__call__` of its own."
        )
    if config.get("axis", -1) not in (-1, 1):
        raise InputError(
            f"`loss` {name} must have the classes along the last axis. "
            f"Received: axis={config['axis']!r}."
        )
    if loss.reduction not in _AVERAGES:
        raise InputError(
            f"`loss` {name} must be averaged over the batch; scale the learning rate instead. "
            f"Received: reduction={loss.reduction!r}."
        )


def _from_logits(name):
    return (
        f"`loss` expects probabilities, but the network gives logits. Received: {name} without "
        "from_logits=True; pass keras.losses.SparseCategoricalCrossentropy(from_logits=True), "
        "which is also the default."
    )


def _reduce_to_batch(loss_fn):
    def values(y, outputs):
        losses = tf.cast(loss_fn(tf.convert_to_tensor(y), tf.cast(outputs, tf.float32)), tf.float32)
        if losses.shape.rank == 0:
            raise InputError(
                "`loss` must give one value per example (reduction=None). Received: a scalar."
            )
        return tf.reduce_mean(tf.reshape(losses, [tf.shape(losses)[0], -1]), axis=1)

    return values
