"""A compiled Keras loss as the per-example function that methods need."""

import keras
import tensorflow as tf

from soar_tf.errors import InputError


def default_loss():
    """Cross-entropy of integer labels from logits, what `compile` uses if no loss is given."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def per_example(loss):
    """Turns a Keras loss into `(y, outputs [B, ...]) -> [B]`, in float32.

    Args:
        loss: A `keras.losses.Loss`, a name or a callable `(y_true, y_pred)`, as `compile` takes.

    Returns:
        The callable.

    Raises:
        InputError: If the loss expects probabilities: networks here give logits.

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
        if "crossentropy" in name and isinstance(loss, str):
            raise InputError(_from_logits(name))
        return _reduce_to_batch(resolved)
    config = resolved.get_config()
    if config.get("from_logits") is False:
        raise InputError(_from_logits(type(resolved).__name__))

    def unreduced(y, outputs):
        return resolved.call(y, outputs)

    return _reduce_to_batch(unreduced)


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
