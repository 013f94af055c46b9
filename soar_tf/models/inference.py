"""Networks as functions from images to logits, in inference mode."""

import weakref

import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models.precision import in_float32


class _InferenceLogits:
    """A network as a logits function in inference mode, hashable by the network's identity."""

    def __init__(self, network):
        self.network = network

    def __call__(self, x):
        with in_float32(self.network):
            outputs = self.network(x, training=False)
        if isinstance(outputs, (dict, list, tuple)):
            raise InputError(
                "`network` must have one output, a tensor of logits [B, C]. Received: "
                f"a {type(outputs).__name__} of {len(outputs)}."
            )
        return tf.cast(outputs, tf.float32)

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


class NetworkCache:
    """What was compiled for each network, for as long as the network lives.

    A graph keeps the variables that it reads, not the Python object of its network; so the cache
    refers to networks weakly, and forgets what belongs to one that is gone.
    """

    def __init__(self):
        self._by_network = weakref.WeakKeyDictionary()

    def of(self, logits_fn):
        """A dictionary for a network's graphs, the same one in every call.

        Args:
            logits_fn: What `as_logits_fn` gives. A callable that cannot be referred to weakly gets
                a new dictionary each time.
        """
        owner, part = getattr(logits_fn, "network", logits_fn), None
        if hasattr(owner, "__self__"):  # a bound method is a new object each time
            owner, part = owner.__self__, owner.__func__
        try:
            return self._by_network.setdefault(owner, {}).setdefault(part, {})
        except TypeError:
            return {}

    def __deepcopy__(self, memo):
        return NetworkCache()

    def __reduce__(self):
        return NetworkCache, ()
