"""The engine: the only train step of the package."""

import contextlib
import re
import warnings

import keras
import numpy as np
import tensorflow as tf

from soar_tf import methods, networks
from soar_tf.errors import InputError, check_integer, check_pixels, pixels_outside
from soar_tf.ops import random
from soar_tf.ops.second_order_check import check_second_order
from soar_tf.training import batch_norm, losses, replicas

_OUTSIDE = "soar_tf: pixels outside [0, 1]:"


@keras.saving.register_keras_serializable(package="soar_tf")
class RobustModel(keras.Model):
    """A Keras model that trains a network with a method.

    Calling, predicting, evaluating and exporting it is calling the network; `fit` minimises the
    method's objective. `fit` logs `loss` (the whole objective), `penalty` (the mean regularizer,
    before its weight) for methods that have one, and the compiled metrics, computed from the
    logits that the method trains on (adversarial ones, for most methods).

    Args:
        network: A built `keras.Model` with one input (pixels in [0, 1]) that gives logits
            `[B, C]`, or any output that the compiled loss takes. BatchNorm, Dropout, weight
            regularizers and mixed precision are fine.
        method: A `soar_tf.methods.Method` or a registered name.
        seed: Seed of all noise: starts, directions, finite-difference steps.

    Raises:
        InputError: If the network's last layer is a softmax, or if the method needs second
            derivatives that TensorFlow cannot give for one of its layers.

    Example:

    >>> import keras, numpy as np, soar_tf
    >>> network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
    ...                             keras.layers.Dense(10)])
    >>> model = soar_tf.RobustModel(network, soar_tf.methods.Adversarial(steps=2))
    >>> model.compile(optimizer="sgd", metrics=["accuracy"])
    >>> x, y = np.random.rand(32, 8, 8, 1).astype("float32"), np.arange(32) % 10
    >>> sorted(model.fit(x, y, verbose=0).history)
    ['accuracy', 'loss']
    """

    def __init__(self, network, method, *, seed=0, **kwargs):
        networks.check_gives_logits(network)
        kwargs.setdefault("dtype", network.dtype_policy)
        kwargs.setdefault("name", f"robust_{network.name}")
        super().__init__(**kwargs)
        self.network = network
        self.method = methods.get(method)
        self.seed = check_integer(seed, "seed", minimum=0)
        # The optimizer's own counter stands still in skipped and accumulated steps.
        self.step = self.add_weight(
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )
        if self.method.has_penalty:
            self.penalty_tracker = keras.metrics.Mean(name="penalty")
        self.built = True

    def call(self, inputs, training=None):
        return self.network(inputs, training=training)

    def compile(self, optimizer="sgd", loss=None, metrics=None, **kwargs):
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: Any Keras optimizer.
            loss: One per-example Keras loss on logits. Default: sparse categorical cross-entropy.
            metrics: Any Keras metrics.
            **kwargs: Further arguments of `keras.Model.compile`.
        """
        loss = losses.default_loss() if loss is None else loss
        self._per_example_loss = losses.per_example(loss)
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """Trains; see `keras.Model.fit`. Arrays of pixels outside [0, 1] are refused."""
        if isinstance(x, np.ndarray):
            check_pixels(x, "x")
        if self.method.second_order:
            xla = bool(self.jit_compile)
            check_second_order(self.network, quick=True, xla=xla).raise_if_wrong()
        fresh, before = batch_norm.untouched(self.network), int(self.step)
        with _assertions_as_input_errors():
            history = super().fit(x, y, *args, **kwargs)
        if sentence := batch_norm.lag(fresh, int(self.step) - before):
            warnings.warn(sentence, stacklevel=2)
        return history

    def export(self, filepath, **kwargs):
        """Exports the network alone: see `keras.Model.export` and `soar_tf.export`."""
        return self.network.export(filepath, **kwargs)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = self._checked_pixels(tf.cast(x, tf.float32))
        forward = methods.Forward(self.network, xla=bool(self.jit_compile))
        positions = replicas.global_positions(tf.shape(x)[0])
        keys = random.example_keys(self.seed, positions, step=self.step.value, purpose="training")
        with tf.GradientTape(persistent=True) as tape:
            terms = self.method.terms(forward, x, y, loss_fn=self._per_example_loss, keys=keys)
            objective = _weighted_mean(terms.loss, sample_weight)
            added = forward.added_losses(terms.logits)
            regularization = tf.add_n(added) if added else None
            if regularization is not None:
                objective += regularization
            penalty = None
            if terms.penalty is not None:
                penalty = terms.penalty_weight * _weighted_mean(terms.penalty, sample_weight)
            parts = self._scaled_parts(objective, penalty)
        gradients = self._gradients(tape, parts, terms, regularization, sample_weight)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_weights, strict=True))
        self.step.assign_add(1)
        self._track(objective, penalty, terms)
        return self.compute_metrics(x, y, terms.logits, sample_weight=sample_weight)

    def test_step(self, data):
        logs = super().test_step(data)
        logs.pop("penalty", None)
        return logs

    def _checked_pixels(self, x):
        """`x`, after a check of its range inside the graph (XLA has no assertions)."""
        if self.jit_compile:
            return x
        low, high = tf.reduce_min(x), tf.reduce_max(x)
        inside = (low >= 0.0) & (high <= 1.0)
        with tf.control_dependencies([tf.debugging.Assert(inside, [_OUTSIDE, low, high])]):
            return tf.identity(x)

    def _scaled_parts(self, objective, penalty):
        """Objective, penalty and their sum times a factor, and this factor (all on the tape).

        The factor is the optimizer's loss scale times the replica's share of the global mean.
        """
        factor = self.optimizer.scale_loss(tf.constant(1.0)) / replicas.count()
        if penalty is None:
            return objective * factor, None, objective * factor, factor
        return objective * factor, penalty * factor, (objective + penalty) * factor, factor

    def _gradients(self, tape, parts, terms, regularization, sample_weight):
        """The gradient by each trainable weight, the penalty's clipped by itself if asked for."""
        objective, penalty, total, factor = parts
        weights = [weight.value for weight in self.network.trainable_weights]
        clipnorm = self.method.penalty_clipnorm
        if penalty is None or clipnorm is None:
            return tape.gradient(total, weights)
        penalty_gradients = replicas.sum_gradients(tape.gradient(penalty, weights))
        # The sum over replicas is clipped, and summed once more by the optimizer.
        limit = clipnorm * factor * replicas.count()
        clipped = [_scaled(g, 1.0 / replicas.count()) for g in _clip(penalty_gradients, limit)]
        if terms.loss_gradients is None or sample_weight is not None:
            return _add(clipped, tape.gradient(objective, weights))
        # The mean loss's gradient came with the input gradient: no second backward pass.
        share = factor / tf.cast(tf.shape(terms.loss)[0], tf.float32)
        gradients = _add(clipped, [_scaled(g, share) for g in terms.loss_gradients])
        if regularization is not None:
            penalty_on_weights = tape.gradient(regularization, weights)
            gradients = _add(gradients, [_scaled(g, factor) for g in penalty_on_weights])
        return gradients

    def _track(self, objective, penalty, terms):
        batch = tf.shape(terms.loss)[0]
        total = objective if penalty is None else objective + penalty
        self._loss_tracker.update_state(total, sample_weight=batch)
        if penalty is not None:
            self.penalty_tracker.update_state(tf.reduce_mean(terms.penalty), sample_weight=batch)

    def get_config(self):
        config = super().get_config()
        return {
            **config,
            "network": keras.saving.serialize_keras_object(self.network),
            "method": methods.serialize(self.method),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("network", "method"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for position, state in enumerate(self._seed_states()):
            store[f"seed_state_{position}"] = state.numpy()

    def load_own_variables(self, store):
        states = self._seed_states()
        names = set(store.keys())  # an h5 group, which has no other way to iterate
        saved = {name: store[name] for name in names if not name.startswith("seed_state_")}
        for position, state in enumerate(states):
            if f"seed_state_{position}" in names:
                state.assign(store[f"seed_state_{position}"])
        super().load_own_variables(saved)

    def _seed_states(self):
        """The states of the network's seed generators (Dropout), which Keras does not save."""
        known = {id(v) for v in [*self.weights, *self.metrics_variables]}
        return [v for v in self.network.variables if id(v) not in known]


@contextlib.contextmanager
def _assertions_as_input_errors():
    """Turns the graph's failed range check into the sentence that arrays get."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        number = r"[^-\dni]*([-+.\dnaife]+)"
        found = re.search(re.escape(_OUTSIDE) + number + number, str(error))
        if _OUTSIDE not in str(error):
            raise
        low, high = found.groups() if found else ("?", "?")
        raise InputError(pixels_outside("x", low, high)) from None


def _weighted_mean(values, sample_weight):
    """Sum of the weighted values over the number of examples, as Keras's losses reduce."""
    if sample_weight is not None:
        values *= tf.reshape(tf.cast(sample_weight, values.dtype), tf.shape(values))
    return tf.reduce_mean(values)


def _scaled(gradient, factor):
    return None if gradient is None else tf.convert_to_tensor(gradient) * factor


def _clip(gradients, maximum):
    return tf.clip_by_global_norm(gradients, maximum)[0]


def _add(first, second):
    """Sums two lists of gradients, in which `None` stands for zero."""
    return [
        b if a is None else a if b is None else a + tf.convert_to_tensor(b)
        for a, b in zip(first, second, strict=True)
    ]
