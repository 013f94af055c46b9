"""What a network ends in: logits, or a softmax that attacks and SOAR cannot work through."""

import keras
from keras import layers

from soar_tf.errors import InputError
from soar_tf.models import keras_internals


def check_gives_logits(network):
    """Refuses a network whose last layer is a softmax (attacks would see vanishing gradients).

    Args:
        network: A built `keras.Model`.

    Raises:
        InputError: If it is no built Keras model, or ends in a softmax; it says what to do.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.check_gives_logits(soar_tf.networks.mlp())  # passes
    """
    if not isinstance(network, keras.Model):
        raise InputError(f"`network` must be a keras.Model. Received: {type(network).__name__}.")
    if not network.built:
        raise InputError(
            f"`network` {network.name!r} is not built; give it a keras.Input or call it once on "
            "images."
        )
    counts = [len(getattr(network, side, None) or [None]) for side in ("inputs", "outputs")]
    if counts != [1, 1]:
        raise InputError(
            "`network` must have one input and one output. "
            f"Received: {counts[0]} inputs and {counts[1]} outputs."
        )
    if (layer := softmax_head(network)) is not None:
        raise InputError(
            "`network` must give logits, but its last layer "
            f"{layer.name!r} is a softmax; pass soar_tf.networks.to_logits(network) instead."
        )


def softmax_head(network):
    """The layer or operation that ends `network` with a softmax or a sigmoid, or `None`.

    Args:
        network: A `keras.Model`. Of a subclassed one nothing is known; see `soar_tf.probe`.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.softmax_head(soar_tf.networks.mlp()) is None
    True
    """
    last = _output_operation(network)
    if isinstance(last, keras.Model):
        return softmax_head(last)
    return last if _kind(last) is not None else None


def to_logits(network):
    """A network without its final softmax: the same function up to that softmax.

    All layers but the last are shared with `network`; a dense layer with a built-in softmax is
    replaced by a linear one with a copy of its weights.

    Args:
        network: A functional or sequential `keras.Model`. If it gives logits, it is returned.

    Returns:
        A `keras.Model` giving logits.

    Raises:
        InputError: If the network is neither functional nor sequential, so that its last layer
            cannot be taken off, or ends in a sigmoid.

    Example:

    >>> import keras, soar_tf
    >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    >>> soar_tf.networks.softmax_head(soar_tf.networks.to_logits(network)) is None
    True
    """
    last = softmax_head(network)
    if last is None:
        return network
    if _kind(last) == "sigmoid":
        raise InputError(
            f"`network` ends in a sigmoid (layer {last.name!r}); use one logit per class, at "
            "least 2 classes."
        )
    if not getattr(network, "inputs", None):
        raise InputError(
            "`network` ends in a softmax that cannot be taken off, since it is neither functional "
            "nor sequential; build it without the softmax."
        )
    outer = keras_internals.output_layer(network.outputs[0])
    features = keras_internals.input_of_output(network.outputs[0])
    if isinstance(outer, keras.Model):
        logits = to_logits(outer)(features)
    elif isinstance(outer, layers.Softmax | layers.Activation) or not isinstance(
        outer, layers.Layer
    ):
        logits = features
    else:
        linear = type(outer).from_config({**outer.get_config(), "activation": "linear"})
        logits = linear(features)
        linear.set_weights(outer.get_weights())
    return keras.Model(network.inputs, logits, name=network.name)


def _output_operation(network):
    """What computes the output of a functional or sequential network; `None` for others."""
    outputs = getattr(network, "outputs", None)
    return keras_internals.output_layer(outputs[0]) if outputs else None


def _kind(operation):
    """`"softmax"`, `"sigmoid"`, or `None` for what ends in neither."""
    activation = getattr(operation, "activation", None)
    # `keras.ops.softmax` in a functional network is an operation of that class; an activation may
    # be Keras's function or TensorFlow's.
    name = getattr(activation, "__name__", type(operation).__name__).lower().rstrip("_v2")
    return name if name in ("softmax", "sigmoid") else None
