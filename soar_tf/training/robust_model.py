"""The engine: the only train step of the package."""

import functools
import warnings

import keras
import numpy as np
import tensorflow as tf

from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.methods.method import UNCLIPPED
from soar_tf.models import keras_internals, networks
from soar_tf.ops import random
from soar_tf.training import (
    batch_norm,
    epochs,
    first_look,
    harm,
    hidden_state,
    losses,
    micro_batches,
    pixel_range,
    replicas,
    skipping,
    step,
    within_epoch,
)
from soar_tf.training.adaptive_weight import AdaptiveWeight
from soar_tf.training.weight_perturbation import WeightPerturbation
from soar_tf.validation import check_integer, check_pixels, check_seed


@keras.saving.register_keras_serializable(package="soar_tf")
class RobustModel(skipping.SkippingModel, within_epoch.ResumableModel):
    """A Keras model that trains a network with a method.

    Calling, predicting, evaluating and exporting it is calling the network; `fit` minimises the
    method's objective. `fit` logs `loss` (the whole objective), `penalty` (the mean regularizer,
    before its weight) for methods that have one, the method's `diagnostics`, and the compiled
    metrics, computed from the logits that the method trains on (adversarial ones, for most
    methods).

    Args:
        network: A built `keras.Model` with one input (pixels in [0, 1]) that gives logits
            `[B, C]`, or any output that the compiled loss takes. BatchNorm, Dropout, weight
            regularizers and mixed precision are fine.
        method: A `soar_tf.methods.Method` or a registered name.
        seed: Seed of all noise: starts, directions, finite-difference steps.
        micro_batch: Largest number of examples that go through the network together. A larger
            batch goes in parts, one after the other, and one optimizer step uses the summed
            gradients: the same step up to rounding, in the memory of a part. BatchNorm in training
            mode sees the parts: it normalises by, and averages, the statistics of each; and
            Dropout draws other masks. `None`: batches stay whole.
        skip_clipped: Whether a step leaves out the second-order passes of the examples whose
            penalty is clipped to a constant, and so has no gradient: the same step up to rounding.
            With SOAR's defaults and a share s of unclipped examples it costs (7 + 12 s) / 3
            standard steps instead of 5. `"auto"`: where that is cheaper, chosen every 50 steps by
            the share so far, and never under XLA (`jit_compile=True`, or `"auto"` on a GPU), which
            needs to know every shape. `True`, `False`: always, never. It changes nothing for
            methods that do not clip their examples' penalties.
        awp: Size of the adversarial weight perturbation (arXiv:2004.05884), at least 0, or a
            schedule: each step takes its gradient where every kernel is moved up the gradient by
            this share of the kernel's own length. The authors take 0.01 for PGD training, and for
            TRADES 0.005 after ten epochs, `"stairs(0, 0.005, epochs=10)"`. It costs the method's
            passes again, but its search. What is logged is at the moved weights.

    Raises:
        InputError: If the network's last layer is a softmax, if the method needs second
            derivatives that TensorFlow cannot give for one of its layers, if it couples the
            examples of a batch that `micro_batch` or several replicas would split, or if
            `skip_clipped=True` meets XLA.

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

    def __init__(
        self, network, method, *, seed=0, micro_batch=None, skip_clipped="auto", awp=None, **kwargs
    ):
        networks.check_gives_logits(network)
        kwargs.setdefault("dtype", network.dtype_policy)
        kwargs.setdefault("name", f"robust_{network.name}")
        super().__init__(**kwargs)
        self.network = network
        self.method = methods.get(method)
        self.seed = check_seed(seed)
        if micro_batch is not None:
            micro_batch = check_integer(micro_batch, "micro_batch", minimum=1)
        self.method.check_batches(micro_batch, replicas.count())
        self.micro_batch = micro_batch
        # The optimizer's own counter stands still in skipped and accumulated steps.
        self.step = self.add_weight(
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )
        self._steps_per_epoch, self.looked = None, False
        if self.method.has_penalty:
            self.penalty_tracker = keras.metrics.Mean(name="penalty")
        self.diagnostic_trackers = [skipping.EpochMean(name) for name in self.method.diagnostics]
        # Plain objects, whose variables Keras does not count among the weights.
        self._skipping = skipping.Skipping(skip_clipped)
        self._weight = AdaptiveWeight(self.method.weight_rule)
        self._aligns = False
        self._perturbation = WeightPerturbation(awp)
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
        if kwargs.get("loss_weights") is not None:
            raise InputError(
                "`loss_weights` are for several outputs; a method has weights of its own. "
                f"Received: {kwargs['loss_weights']}."
            )
        with self.distribute_strategy.scope():
            super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        replicas.check_distributed(self, self.optimizer, kwargs.get("jit_compile"))
        if self.method.clips_examples:
            self._skipping.check(xla=bool(self.jit_compile))

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """Trains; see `keras.Model.fit`.

        Before the first step it looks at some of the data and at what the network makes of it, see
        `soar_tf.probe`: pixels outside [0, 1], labels that the loss cannot take, and networks that
        make no sense with the method are refused.
        """
        if isinstance(x, np.ndarray):
            check_pixels(x, "x")
        given = epochs.fit_arguments(x, y, *args, **kwargs)
        validation_data = given.get("validation_data")
        first_look.look(self, x, y, validation_data)
        self._count_steps(x, y, *args, **kwargs)
        given["callbacks"] = harm.watched(self, x, y, validation_data, given.get("callbacks"))
        fresh, before = batch_norm.untouched(self.network), int(self.step.numpy())
        with pixel_range.assertions_as_input_errors():
            history = super().fit(**given)
        if sentence := batch_norm.lag(fresh, int(self.step.numpy()) - before):
            warnings.warn(sentence, stacklevel=2)
        return history

    def _count_steps(self, *args, **kwargs):
        """Finds the number of steps in an epoch of `fit`, which schedules in epochs need."""
        known, self._steps_per_epoch = self._steps_per_epoch, epochs.steps_per_epoch(args, kwargs)
        counted = self.method.schedules_count_epochs or self._perturbation.counts_epochs
        if self._steps_per_epoch != known and counted:
            self.train_function = None  # it holds the other number

    def export(self, filepath, **kwargs):
        """Exports the network alone: see `keras.Model.export` and `soar_tf.export`."""
        return self.network.export(filepath, **kwargs)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = replicas.nonempty(tf.cast(first_look.only_input(x), tf.float32))
        if self.jit_compile:
            micro_batches.check_compilable(x, self.micro_batch)
        else:
            x = pixel_range.checked(x)
        share = replicas.share(tf.shape(x)[0])
        keys = random.example_keys(
            self.seed, share.positions, step=self.step.value, purpose="training"
        )
        # The optimizer's loss scale times the replica's share of the global mean.
        factor = self.optimizer.scale_loss(tf.constant(1.0)) * share.fraction
        # The method as it is in this step: its schedules' values for constants.
        method = self.method.at(self.step.value, self._steps_per_epoch)
        rule, method = method.weight_rule, self._weight.weigh(method)

        def whole_batch(points=(), **arguments):
            def part_of(*rows):
                return step.part(
                    self.network,
                    method,
                    self._per_example_loss,
                    rows,
                    step=self.step.value,
                    xla=bool(self.jit_compile),
                    skip=self._may_skip and self._skipping.way,
                    factor=factor,
                    batch=tf.shape(x)[0],
                    align=self._aligns,
                    **arguments,
                )

            rows = (x, y, sample_weight, keys, *points)
            return micro_batches.accumulate(part_of, rows, self.micro_batch)

        size = self._perturbation.at(self.step.value, self._steps_per_epoch)
        reduce = functools.partial(self._global_gradients, clipnorm=method.penalty_clipnorm)
        whole, gradients = self._perturbation.step(self.network, size, x, whole_batch, reduce)
        # Before the counter moves: the values of the step that is being taken.
        scheduled = self.method.scheduled_values(self.step.value, self._steps_per_epoch)
        scheduled |= self._perturbation.logged(size)
        scheduled |= self._weight.update(rule, lambda: share.total(whole.mean_penalty))
        if self.method.clips_examples:
            self._skipping.update(share.total(whole.diagnostics[UNCLIPPED]))
        if step.ALIGNMENT in whole.diagnostics:
            scheduled[step.ALIGNMENT] = share.total(whole.diagnostics[step.ALIGNMENT])
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_weights, strict=True))
        self.step.assign_add(1)
        self._track(whole, tf.shape(x)[0])
        logs = self.compute_metrics(x, y, whole.logits, sample_weight=sample_weight)
        return self._reducible({**logs, **scheduled})

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if training or not losses.takes_shares(self.loss, y, y_pred):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        regularizers = sum(keras.ops.sum(term) for term in self.losses)
        return loss(y, y_pred, sample_weight=sample_weight) + regularizers

    def test_step(self, data):
        x, *others = keras.utils.unpack_x_y_sample_weight(data)
        logs = self._reducible(super().test_step((first_look.only_input(x), *others)))
        for name in ("penalty", *self.method.diagnostics):
            logs.pop(name, None)
        return logs

    def _global_gradients(self, whole, clipnorm):
        """The global batch's gradient by each trainable weight, the penalty's part clipped.

        Summed over the replicas, so that the optimizer clips and checks the global gradient.
        """
        gradients = replicas.sum_gradients(whole.gradients)
        if whole.penalty_gradients is None:
            return gradients
        limit = clipnorm * self.optimizer.scale_loss(tf.constant(1.0))
        clipped, _ = tf.clip_by_global_norm(replicas.sum_gradients(whole.penalty_gradients), limit)
        return step.add(clipped, gradients)

    def _track(self, whole, batch):
        total = whole.objective if whole.penalty is None else whole.objective + whole.penalty
        keras_internals.loss_tracker(self).update_state(total, sample_weight=batch)
        if whole.mean_penalty is not None:
            self.penalty_tracker.update_state(whole.mean_penalty, sample_weight=batch)
        for tracker in self.diagnostic_trackers:
            tracker.update_state(whole.diagnostics[tracker.name], sample_weight=batch)

    def log_alignment(self):
        """Lets each train step from now on log `alignment`, at the cost of no further pass.

        It is the batch's mean cosine between the loss's gradient at the point where a single
        crafting step starts and the one at the point where it ends. Where one-step training is
        about to overfit catastrophically, it falls (arXiv:2007.02617). Only steps of `fast`,
        `n-fgsm`, `gradalign`, `elle` and `adversarial` with one step log it. The step's gradient
        then goes down to the images, one layer further than the weights need. `fit` logs the value
        of each epoch's last step.
        """
        if not self._aligns:
            self._aligns, self.train_function = True, None

    def get_config(self):
        config = super().get_config()
        return {
            **config,
            "network": keras.saving.serialize_keras_object(self.network),
            "method": methods.serialize(self.method),
            "seed": self.seed,
            "micro_batch": self.micro_batch,
            "skip_clipped": self._skipping.setting,
            "awp": self._perturbation.setting,
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
        hidden_state.save(store, self._seed_states(), self._other_states())

    def load_own_variables(self, store):
        rest = hidden_state.load(store, self._seed_states(), (self._skipping, self._weight))
        super().load_own_variables(rest)

    def _other_states(self):
        return [*([self._skipping] if self.method.clips_examples else []), self._weight]

    def _seed_states(self):
        """The states of the network's seed generators (Dropout), which Keras does not save."""
        known = {id(v) for v in [*self.weights, *self.metrics_variables]}
        return [v for v in self.network.variables if id(v) not in known]
