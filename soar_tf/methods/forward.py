"""The network as methods see it: one function for each way of passing through it."""

import inspect

import keras
import tensorflow as tf

from soar_tf.ops import second_order


class Forward:
    """A network's forward passes; each method says which one it means.

    Every pass returns float32 logits `[B, C]`.

    Args:
        network: A built `keras.Model` giving logits.
        xla: Whether the passes may be compiled by XLA.

    Attributes:
        weights: The network's trainable weights, as TensorFlow variables.
        depends_on_training: Whether the training and the inference pass can differ. If not, one
            pass may serve for both.
    """

    def __init__(self, network, *, xla=False):
        self.network = network
        self.xla = xla
        self.weights = [weight.value for weight in network.trainable_weights]
        self.depends_on_training = bool(training_dependent_layers(network))
        self._passes = []

    def _pass(self, x, training):
        logits = tf.cast(self.network(x, training=training), tf.float32)
        # Keras clears a network's losses at its next call.
        self._passes.append((logits, list(self.network.losses)))
        return logits

    def added_losses(self, logits):
        """The weight and activity regularization losses of the pass that gave `logits`."""
        return next((added for seen, added in self._passes if seen is logits), [])

    def training(self, x):
        """Training mode: batch statistics, dropout; updates BatchNorm's moving statistics."""
        return self._pass(x, training=True)

    def inference(self, x):
        """Inference mode: what attacks see. A function of each example alone, without state."""
        return tf.cast(self.network(x, training=False), tf.float32)

    def curvature(self, x):
        """Inference mode, in float32, with exact second derivatives: for curvature penalties.

        Inference mode makes the loss of an example a function of this example alone (BatchNorm's
        batch statistics would couple them) and gives both points of a finite difference the same
        dropout mask: none.
        """
        with second_order.exact(xla=self.xla), second_order.float32(self.network):
            return self._pass(x, training=False)


def training_dependent_layers(network):
    """The innermost layers whose `call` takes `training`: they may differ between the modes."""
    found = []
    for layer in network._flatten_layers(include_self=True, recursive=True):
        inner = list(layer._flatten_layers(include_self=False, recursive=False))
        container = isinstance(layer, keras.Model) and inner
        if not container and "training" in inspect.signature(layer.call).parameters:
            found.append(layer)
    return found
