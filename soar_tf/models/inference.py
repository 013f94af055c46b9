"""Networks as functions from images to logits, in inference mode."""

import functools
import inspect
import weakref

import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models.keras_internals import has_layers
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
    return _InferenceLogits(network) if has_layers(network) else network


class TracedOnce:
    """A Keras network's logits function that all graphs which call it share the trace of.

    Building an attack's graph is mostly running the network's layers in Python, two or three times
    per attack. TensorFlow puts the shared graph's operations back into the callers' graphs before
    it runs them, so the results are the same bits. A gradient that is replaced operation by
    operation, as in `soar_tf.evaluation.straight_through`, needs the operations themselves.

    Args:
        logits_fn: Callable `[n, ...] -> [n, C]` of TensorFlow operations, whose network has been
            called before: variables cannot be created in here.

    Example:

    >>> import soar_tf
    >>> import tensorflow as tf
    >>> from soar_tf.models.inference import TracedOnce
    >>> shared = TracedOnce(soar_tf.attacks.as_logits_fn(soar_tf.networks.mlp()))
    >>> tf.function(lambda x: shared(x) + shared(-x))(tf.zeros((2, 8, 8, 1))).shape
    TensorShape([2, 10])
    """

    def __init__(self, logits_fn):
        self._logits_fn, self._graphs = logits_fn, {}

    def __call__(self, x):
        if tf.executing_eagerly():
            return self._logits_fn(x)
        signature = tf.TensorSpec([None, *x.shape[1:]], x.dtype)
        if signature not in self._graphs:
            # A `partial`: see `soar_tf.evaluation.parts.search_graph`.
            own = functools.partial(self._logits_fn)
            self._graphs[signature] = tf.function(own, input_signature=[signature], autograph=False)
        return self._graphs[signature](x)


class NetworkCache:
    """What was compiled for each network, for as long as the network lives.

    A graph keeps the variables that it reads, not the Python object of its network; so the cache
    refers to networks weakly, and forgets what belongs to one that is gone.
    """

    def __init__(self):
        self._by_network = weakref.WeakKeyDictionary()

    def of(self, logits_fn):
        """A network's graphs, and the network for them to call.

        Args:
            logits_fn: What `as_logits_fn` gives.

        Returns:
            `(graphs, network)`: a dictionary, the same one in every call (a new one for a callable
            that cannot be referred to weakly), and a function without arguments that gives
            `logits_fn` as long as somebody holds its network.
        """
        if isinstance(logits_fn, _InferenceLogits):
            owner = weakref.ref(logits_fn.network)
            return self._of(owner(), None), lambda: _InferenceLogits(owner())
        try:
            if inspect.ismethod(logits_fn):  # which is a new object each time
                method = weakref.WeakMethod(logits_fn)
                return self._of(logits_fn.__self__, logits_fn.__func__), method
            return self._of(logits_fn, None), weakref.ref(logits_fn)
        except TypeError:
            return {}, lambda: logits_fn

    def _of(self, owner, part):
        return self._by_network.setdefault(owner, {}).setdefault(part, {})

    def __deepcopy__(self, memo):
        return NetworkCache()

    def __reduce__(self):
        return NetworkCache, ()
