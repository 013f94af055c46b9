"""Networks as functions from images to logits, in inference mode."""

import tensorflow as tf

from soar_tf.models.precision import in_float32


class _InferenceLogits:
    """A network as a logits function in inference mode, hashable by the network's identity."""

    def __init__(self, network):
        self.network = network

    def __call__(self, x):
        with in_float32(self.network):
            return tf.cast(self.network(x, training=False), tf.float32)

    def __eq__(self, other):
        return isinstance(other, _InferenceLogits) and self.network is other.network

    def __hash__(self):
        return id(self.network)


def as_logits_fn(network):
    """A Keras model as a float32 logits function in inference mode; other callables as they are.

    Layers of half precision compute in float32: their rounding hides gradients from attacks.

    Args:
        network: A `keras.Model` giving logits, or a callable `[B, ...] -> [B, C]`.

    Example:

    >>> import soar_tf
    >>> import numpy as np
    >>> logits_fn = soar_tf.attacks.as_logits_fn(soar_tf.networks.mlp())
    >>> logits_fn(np.zeros((2, 8, 8, 1))).shape
    TensorShape([2, 10])
    """
    return _InferenceLogits(network) if hasattr(network, "_flatten_layers") else network
