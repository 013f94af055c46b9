"""The network as methods see it: one function per kind of forward pass."""

import contextlib
import inspect

import keras
import tensorflow as tf

from soar_tf.models import keras_internals
from soar_tf.models.precision import in_float32
from soar_tf.second_order import replacements


class Forward:
    """A network's forward passes; a method calls the one that it needs.

    Every pass returns float32 logits `[B, C]`.

    Args:
        network: A built `keras.Model` giving logits.
        xla: Whether the passes may be compiled by XLA.
        step: The training step, starting at 0: int or integer scalar tensor.
        tape: The train step's gradient tape, for `unrecorded`.
        skip_clipped: Whether a method should skip the passes that only penalties without a gradient
            need. Its loss then need not be recorded if it returns `Terms.loss_gradients`.
        needs_recorded_loss: Whether the loss must be recorded anyway, because the gradient of its
            unweighted sum is not the required one: with sample weights, and inside a sum.
        points: Results of earlier searches with the same batch, for `search` to return again.
        reuse: Whether it returns them: a bool, or a bool scalar tensor.
        watches: Whether the train step uses `watched`.

    Attributes:
        weights: The network's trainable weights, as TensorFlow variables.
        depends_on_training: Whether training and inference mode can differ. If not, one pass may
            serve for both.
        searched: The results of `search`, in order.
        watched: The arguments of `watch`: pairs of a point that the method trains on and the
            gradient that the single step to it followed.

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
        # Keras clears a network's losses at its next call. Weight regularization comes last.
        losses = list(self.network.losses)
        self._passes.append((logits, losses[: len(losses) - len(self._regularized())]))
        return logits

    def _regularized(self):
        return [w for w in self.network.trainable_weights if w.regularizer is not None]

    def activity_losses(self, logits):
        """The losses that layers added in the pass that gave `logits`, weight losses excluded."""
        return next((added for seen, added in self._passes if seen is logits), [])

    def added_losses(self, logits):
        """The weight and activity regularization losses of the pass that gave `logits`.

        Weight regularization is computed here, so it is recorded even if the pass was not.
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

        BatchNorm's moving statistics are thus updated once, from both batches.
        """
        both = self.training(tf.concat([x, x_adv], axis=0))
        logits, logits_adv = tf.split(both, 2, axis=0)
        added = self.activity_losses(both)
        self._passes.extend([(logits, added), (logits_adv, added)])
        return logits, logits_adv

    def unrecorded(self):
        """Context for searches, such as attacks, that the train step's tape does not record.

        Their result is treated as a constant anyway, but TensorFlow would keep every tensor of a
        loop that it might have to differentiate more than once.
        """
        return contextlib.nullcontext() if self._tape is None else self._tape.stop_recording()

    def search(self, function, count=1):
        """The result of a search, such as an attack, unrecorded.

        A train step with adversarial weight perturbation computes a method's terms twice, but
        searches for the points that the method trains on only once and reuses them.

        Args:
            function: Callable without arguments that returns a tensor shaped like the batch `x`,
                or a tuple of `count` of them if `count` is larger than 1.
            count: Number of tensors.

        Returns:
            The result of `function`, or the earlier one.

        Example:

        >>> import soar_tf
        >>> import tensorflow as tf
        >>> forward = soar_tf.methods.Forward(soar_tf.networks.mlp())
        >>> forward.search(lambda: tf.zeros((2, 8, 8, 1))).shape
        TensorShape([2, 8, 8, 1])
        """

        def compute():
            result = function()
            return (result,) if count == 1 else tuple(result)

        known = self._points[len(self.searched) :][:count]
        with self.unrecorded():
            if not known:
                results = compute()
            elif self._reuse is True:
                results = known
            else:
                results = tf.cond(self._reuse, lambda: known, compute)
                shaped = zip(results, known, strict=True)
                results = tuple(tf.ensure_shape(new, old.shape) for new, old in shaped)
        self.searched.extend(results)
        return results[0] if count == 1 else results

    def watch(self, point, slope):
        """Records how a training point was found; the train step compares the gradients.

        Args:
            point: `[B, ...]`, a point that the method trains on. The train step's tape watches it,
                so call this before the point goes through the network.
            slope: `[B, ...]`, the gradient of the loss that the single step to it followed.
        """
        if self._tape is not None:
            self._tape.watch(point)
        self.watched.append((point, slope))

    def inference(self, x):
        """Inference mode, as attacks use it: a stateless function of each example alone."""
        with self._compilable():
            return tf.cast(self.network(x, training=False), tf.float32)

    def _compilable(self):
        """XLA has no bicubic resizing, but compiles it as a matrix product. Pooling is kept."""
        return replacements.exact(xla=False) if self.xla else contextlib.nullcontext()

    def inference32(self, x):
        """Inference mode in float32, for perturbations that half precision would round away."""
        with in_float32(self.network):
            return self.inference(x)

    def curvature(self, x):
        """Inference mode, in float32, with exact second derivatives: for curvature penalties.

        Inference mode makes the loss of an example a function of this example alone (BatchNorm's
        batch statistics would couple examples) and disables dropout at both points of a finite
        difference.
        """
        with replacements.exact(xla=self.xla), in_float32(self.network):
            return self._pass(x, training=False)


# Layers whose `call` takes `training` but ignores it.
_SAME_IN_BOTH_MODES = (keras.layers.Dense, keras.layers.EinsumDense)


def training_dependent_layers(network):
    """The innermost layers whose `call` takes `training`, so the modes may differ."""
    dependent = []
    for layer in keras_internals.layers_of(network):
        if type(layer) in _SAME_IN_BOTH_MODES:
            continue
        inner = keras_internals.layers_of(layer, include_self=False, recursive=False)
        container = isinstance(layer, keras.Model) and inner
        if not container and "training" in inspect.signature(layer.call).parameters:
            dependent.append(layer)
    return dependent
