"""The dtype that a built network's layers compute in. Their variables are float32 throughout."""

import contextlib

import keras

_KNOWN = ("float32", "mixed_float16", "mixed_bfloat16")


def set_precision(network, precision):
    """Makes a built network compute in a precision, which Keras itself fixes in its layers.

    Under a mixed policy the layers that give the outputs stay in float32, for a half-precision
    softmax loses small probabilities. Quantized layers and layers with variables of another dtype
    than float32 are left as they are. Functions that were traced before keep what they had.

    Args:
        network: A built `keras.Model`.
        precision: `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`.

    Example:

    >>> import keras
    >>> from soar_tf.precision import set_precision
    >>> network = keras.Sequential([keras.Input([4]), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> set_precision(network, "mixed_bfloat16")
    >>> [layer.compute_dtype for layer in network.layers]
    ['bfloat16', 'float32']
    """
    policy = keras.DTypePolicy(precision)
    single = keras.DTypePolicy("float32")
    last = {id(layer) for layer in _output_layers(network)}
    for layer in network._flatten_layers():
        keeps = layer.quantization_mode is not None or isinstance(layer, keras.layers.InputLayer)
        if not keeps and layer.dtype_policy.name in _KNOWN:
            # The attribute behind `dtype_policy`: the setter edits policy maps that layers share.
            layer._dtype_policy = single if id(layer) in last else policy


@contextlib.contextmanager
def in_float32(network):
    """Context in which a network computes in float32, whatever its precision.

    It is for what leaves a training in half precision: the network that is saved. Gradients
    through a network that rounds to half precision show an attack less than there is.

    Args:
        network: A built `keras.Model`.
    """
    layers = list(network._flatten_layers())
    policies = [layer._dtype_policy for layer in layers]
    try:
        set_precision(network, "float32")
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer._dtype_policy = policy


def _output_layers(network):
    """The layers whose outputs are the network's, also of models within it."""
    found = []
    for output in getattr(network, "outputs", None) or []:
        layer = output._keras_history.operation
        found.append(layer)
        if isinstance(layer, keras.Model):
            found += _output_layers(layer)
    return found
