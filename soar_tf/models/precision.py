"""The dtype that a built network's layers compute in, which Keras fixes when they are made."""

import contextlib

import keras

from soar_tf.models.keras_internals import (
    ComputePolicy,
    dtype_policy,
    layers_of,
    output_layer,
    set_dtype_policy,
)
from soar_tf.validation import PRECISIONS

_HALF = ("float16", "bfloat16")


def set_precision(network, precision):
    """Makes a built network compute in a precision, from its float32 variables.

    Under a mixed policy the layers that give the outputs stay in float32, for a half-precision
    softmax loses small probabilities. Quantized layers and layers with variables of another dtype
    than float32 are left as they are. Functions that were traced before keep what they had.

    Args:
        network: A built `keras.Model`.
        precision: `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`.

    Example:

    >>> import keras
    >>> from soar_tf.models.precision import set_precision
    >>> network = keras.Sequential([keras.Input([4]), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> set_precision(network, "mixed_bfloat16")
    >>> [layer.compute_dtype for layer in network.layers]
    ['bfloat16', 'float32']
    """
    policy, single = keras.DTypePolicy(precision), keras.DTypePolicy("float32")
    last = {id(layer) for layer in _output_layers(network)}
    for layer in layers_of(network):
        keeps = layer.quantization_mode is not None or isinstance(layer, keras.layers.InputLayer)
        if not keeps and layer.dtype_policy.name in PRECISIONS:
            set_dtype_policy(layer, single if id(layer) in last else policy)


@contextlib.contextmanager
def in_float32(network):
    """Context in which every layer of `network` computes in float32, whatever its precision.

    For curvature: a finite difference of half-precision gradients is noise, the step h being below
    the spacing of half-precision pixels. And for attacks: rounding hides gradients from them.

    Args:
        network: A `keras.Model`. To be used while it is traced.
    """
    half = [layer for layer in layers_of(network) if _computes_in_half(layer)]
    with compute_dtype(half, "float32"):
        yield


@contextlib.contextmanager
def compute_dtype(layers, dtype):
    """Context in which each of `layers` computes in `dtype`, from variables of any dtype."""
    with _restored(layers):
        for layer in layers:
            set_dtype_policy(layer, ComputePolicy(dtype, layer.variable_dtype))
        yield


@contextlib.contextmanager
def saved_in_float32(network):
    """Context in which a network of mixed precision is saved or exported as one in float32."""
    with _restored(layers_of(network)):
        set_precision(network, "float32")
        yield


@contextlib.contextmanager
def _restored(layers):
    policies = [dtype_policy(layer) for layer in layers]
    try:
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            set_dtype_policy(layer, policy)


def _computes_in_half(layer):
    return layer.compute_dtype in _HALF and layer.quantization_mode is None


def _output_layers(network):
    """The layers whose outputs are the network's, also of models within it."""
    found = []
    for output in getattr(network, "outputs", None) or []:
        layer = output_layer(output)
        found.append(layer)
        if isinstance(layer, keras.Model):
            found += _output_layers(layer)
    return found
