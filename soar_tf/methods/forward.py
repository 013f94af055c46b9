"""The network as methods see it: one function for each way of passing through it."""

import contextlib
import inspect

import keras
import tensorflow as tf

from soar_tf.models.precision import in_float32
from soar_tf.second_order import replacements


class Forward:
    """A network's forward passes; each method says which one it means.

    Every pass returns float32 logits `[B, C]`.

    Args:
        network: A built `keras.Model` giving logits.
        xla: Whether the passes may be compiled by XLA.
        step: The training step, from 0 on: int or integer scalar tensor.
        tape: The train step's gradient tape, for `unrecorded`.
        skip_clipped: Whether a method is to leave out the passes that only penalties without a
            gradient need. Its loss need not be recorded then, if it gives `Terms.loss_gradients`.
        needs_recorded_loss: Whether the loss must be recorded all the same, because the gradient of
            its plain sum is not the one that is wanted: with sample weights, and inside a sum.
        points: Results of earlier searches with the same batch, which `search` gives again.
        reuse: Whether it does: a bool, or a bool scalar tensor.
        watches: Whether the train step wants to know `watched`.

    Attributes:
        weights: The network's trainable weights, as TensorFlow variables.
        depends_on_training: Whether the training and the inference pass can differ. If not, one
            pass may serve for both.
        searched: What `search` gave, in order.
        watched: What `watch` was told: pairs of a point that the method trains on and the gradient
            that the single step to it followed.

    Example:

    >>> import soar_tf
    >>> import tensorflow as tf
    >>> forward = soar_tf.methods.Forward(soar_tf.networks.mlp())
    >>> forward.inference(tf.zeros((2, 8, 8, 1))).shape
    TensorShape([2, 10])
    """

    def __init__(
        self,
        network,
        *,
        xla=False,
        step=0,
        tape=None,
        skip_clipped=False,
        needs_recorded_loss=False,
        points=(),
        reuse=True,
        watches=False,
    ):
        self.network = network
        self._tape = tape
        self.skip_clipped = skip_clipped
        self.needs_recorded_loss = needs_recorded_loss
        self.xla = xla
        self.step = step
        self.weights = [weight.value for weight in network.trainable_weights]
        self.depends_on_training = bool(training_dependent_layers(network))
        self._passes = []
        self._points, self._reuse = tuple(points), reuse
        self.searched = []
        self.watches, self.watched = watches, []

    def _pass(self, x, training):
        logits = tf.cast(self.network(x, training=training), tf.float32)
        # Keras clears a network's losses at its next call. The weights' own come last.
        losses = list(self.network.losses)
        self._passes.append((logits, losses[: len(losses) - len(self._regularized())]))
        return logits

    def _regularized(self):
        return [w for w in self.network.trainable_weights if w.regularizer is not None]

    def activity_losses(self, logits):
        """The losses that layers added in the pass that gave `logits`, without the weights'."""
        return next((added for seen, added in self._passes if seen is logits), [])

    def added_losses(self, logits):
        """The weight and activity regularization losses of the pass that gave `logits`.

        The weights' are computed here: recorded, even if the pass was not.
        """
        if not any(seen is logits for seen, _ in self._passes):
            return []
        return [*self.activity_losses(logits), *(w.regularizer(w) for w in self._regularized())]

    def training(self, x):
        """Training mode: batch statistics, dropout; updates BatchNorm's moving statistics."""
        with self._compilable():
            return self._pass(x, training=True)

    def training_pair(self, x, x_adv):
        """Logits of two batches that go through the network as one, in training mode.

        One pass, so one update of BatchNorm's moving statistics, from both batches.
        """
        both = self.training(tf.concat([x, x_adv], axis=0))
        logits, logits_adv = tf.split(both, 2, axis=0)
        added = self.activity_losses(both)
        self._passes.extend([(logits, added), (logits_adv, added)])
        return logits, logits_adv

    def unrecorded(self):
        """A context for searches, such as attacks: the train step's gradient does not see them.

        Their result is a constant for it anyway. But TensorFlow keeps every tensor of a loop that
        it may have to differentiate more than once.
        """
        return contextlib.nullcontext() if self._tape is None else self._tape.stop_recording()

    def search(self, function, count=1):
        """The result of a search, such as an attack, unrecorded.

        A train step with adversarial weight perturbation computes a method's terms twice, and
        searches the points that the method trains on once: the second time, they are given.

        Args:
            function: Callable without arguments that gives a tensor shaped like the batch `x`; or,
                with a larger `count`, a tuple of so many.
            count: Number of tensors.

        Returns:
            What it gives, or gave before.

        Example:

        >>> import soar_tf
        >>> import tensorflow as tf
        >>> forward = soar_tf.methods.Forward(soar_tf.networks.mlp())
        >>> forward.search(lambda: tf.zeros((2, 8, 8, 1))).shape
        TensorShape([2, 8, 8, 1])
        """

        def compute():
            found = function()
            return (found,) if count == 1 else tuple(found)

        known = self._points[len(self.searched) :][:count]
        with self.unrecorded():
            if not known:
                results = compute()
            elif self._reuse is True:
                results = known
            else:
                results = tf.cond(self._reuse, lambda: known, compute)
                shaped = zip(results, known, strict=True)
                results = tuple(tf.ensure_shape(result, old.shape) for result, old in shaped)
        self.searched.extend(results)
        return results[0] if count == 1 else results

    def watch(self, point, slope):
        """Makes a note of how a training point was found; the train step compares the gradients.

        Args:
            point: `[B, ...]`, a point that the method trains on. The step's tape watches it: call
                this before the point goes through the network.
            slope: `[B, ...]`, the loss's gradient that the single step to it followed.
        """
        if self._tape is not None:
            self._tape.watch(point)
        self.watched.append((point, slope))

    def inference(self, x):
        """Inference mode: what attacks see. A function of each example alone, without state."""
        with self._compilable():
            return tf.cast(self.network(x, training=False), tf.float32)

    def _compilable(self):
        """XLA has no bicubic resizing; as a matrix product it compiles. Pooling may stay."""
        return replacements.exact(xla=False) if self.xla else contextlib.nullcontext()

    def inference32(self, x):
        """Inference mode in float32, for crafting that half precision would round away."""
        with in_float32(self.network):
            return self.inference(x)

    def curvature(self, x):
        """Inference mode, in float32, with exact second derivatives: for curvature penalties.

        Inference mode makes the loss of an example a function of this example alone (BatchNorm's
        batch statistics would couple them) and gives both points of a finite difference the same
        dropout mask: none.
        """
        with replacements.exact(xla=self.xla), in_float32(self.network):
            return self._pass(x, training=False)


# Their `call` takes `training` and ignores it.
_SAME_IN_BOTH_MODES = (keras.layers.Dense, keras.layers.EinsumDense)


def training_dependent_layers(network):
    """The innermost layers whose `call` takes `training`: they may differ between the modes."""
    found = []
    for layer in network._flatten_layers(include_self=True, recursive=True):
        if type(layer) in _SAME_IN_BOTH_MODES:
            continue
        inner = list(layer._flatten_layers(include_self=False, recursive=False))
        container = isinstance(layer, keras.Model) and inner
        if not container and "training" in inspect.signature(layer.call).parameters:
            found.append(layer)
    return found
