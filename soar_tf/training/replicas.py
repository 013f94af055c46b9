"""Several replicas: the only file that names `tf.distribute`, and that works around Keras there.

Every replica sees a contiguous part of the global batch. The engine sums gradients over the
replicas itself, before the optimizer clips or checks them, so that a step is the step of one
device on the global batch. `tests/training/test_keras_workarounds.py` tells when Keras no longer
needs a workaround.
"""

import dataclasses

import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models import keras_internals

EMPTY = (
    "Every replica must get at least one example of every batch. Received a batch with fewer "
    "examples than replicas need; use batch(..., drop_remainder=True)."
)


def count():
    """Number of replicas in sync: 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


@dataclasses.dataclass(frozen=True)
class Share:
    """This replica's part of the global batch.

    Attributes:
        positions: int32 `[B]`, the examples' positions in the global batch. They key the noise:
            replicas draw different noise, and together what one device draws.
        fraction: Its share of the global batch's examples; 1.0 without a strategy.
    """

    positions: tf.Tensor
    fraction: tf.Tensor | float

    def total(self, mean):
        """The global batch's mean, from this replica's: the same scalar on every replica."""
        return sum_gradients([self.fraction * mean])[0]


def share(local_batch_size):
    """The `Share` of a replica with that many examples, from inside a replica.

    Batches may be uneven, but every replica needs an example: see `nonempty`.
    """
    positions = tf.range(local_batch_size)
    if count() == 1:
        return Share(positions, 1.0)
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group
    # Float32, exact up to 2**24 examples: not every device sums integers.
    local = tf.cast(local_batch_size, tf.float32)
    own = tf.one_hot(replica, count()) * local
    sizes = context.all_reduce(tf.distribute.ReduceOp.SUM, own)
    offset = tf.cumsum(sizes, exclusive=True)[replica]
    return Share(positions + tf.cast(offset, positions.dtype), local / tf.reduce_sum(sizes))


def nonempty(x):
    """`x [B, ...]`, after a check inside the graph that this replica got any example."""
    if count() == 1:
        return x
    with tf.control_dependencies([tf.debugging.Assert(tf.shape(x)[0] > 0, [EMPTY])]):
        return tf.identity(x)


def sum_gradients(gradients):
    """The gradients summed over all replicas (so that a norm is that of the global gradient)."""
    if count() == 1:
        return gradients
    context = tf.distribute.get_replica_context()
    present = [tf.convert_to_tensor(g) for g in gradients if g is not None]
    reduced = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present)) if present else iter(())
    return [None if gradient is None else next(reduced) for gradient in gradients]


def sharded(function):
    """`function` of tensors `[B, ...]`, its batch spread over the current strategy's devices.

    Every device gets a contiguous part, and the results are put together in order. Without a
    strategy, with one device, or over several hosts (each of which works for itself) it is the
    function itself.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1 or _hosts(strategy) > 1:
        return function
    replicas = strategy.num_replicas_in_sync

    def part(*arguments):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        size = tf.shape(arguments[0])[0]
        start, stop = (size * k // replicas for k in (replica, replica + 1))
        return function(*(argument[start:stop] for argument in arguments))

    def whole(*arguments):
        results = strategy.experimental_local_results(strategy.run(part, args=arguments))
        return tf.concat(results, axis=0)

    return whole


def check_distributed(model, optimizer, jit_compile):
    """Refuses what does not work on several replicas, and readies the optimizer for them.

    Args:
        model: The compiled `RobustModel`.
        optimizer: Its optimizer.
        jit_compile: As passed to `compile`.

    Raises:
        InputError: If something was made outside the strategy's scope, or for XLA or gradient
            accumulation on several replicas.
    """
    strategy = model.distribute_strategy
    home = keras_internals.strategy_of(model)
    if any(_home(variable) is not home for variable in model.variables):
        raise InputError(_outside_scope("`network`"))
    if strategy.num_replicas_in_sync == 1:
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if keras_internals.optimizer_strategy(inner) is not strategy:
        raise InputError(_outside_scope("`optimizer`"))
    if inner.gradient_accumulation_steps:
        raise InputError(
            "`gradient_accumulation_steps` does not work with several replicas; a larger batch "
            f"does the same. Received: {inner.gradient_accumulation_steps}."
        )
    if jit_compile is True:
        raise InputError(
            "`jit_compile` must be False or 'auto' with several replicas: XLA compiles for one "
            "device. Received: True."
        )
    # Keras sums in here, after clipping; the engine has summed before.
    keras_internals.sum_gradients_outside(inner)


def _outside_scope(what):
    return f"{what} and the model must be created inside the same strategy's scope."


def _home(variable):
    """The strategy in whose scope a variable was created, or `None`."""
    value = variable.value
    return value.distribute_strategy if isinstance(value, tf.distribute.DistributedValues) else None


def local_parts(variable):
    """The TensorFlow variables of a Keras variable in this process: one for each replica."""
    value = variable.value
    return value.values if isinstance(value, tf.distribute.DistributedValues) else (value,)


def _hosts(strategy):
    """Number of processes that train together."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return strategy.extended._num_workers if several else 1


def _specification(spec):
    """Shapes and types of one replica's batch, or `None` if they are not known.

    A batch would show them, too, but whoever asks for one reads several ahead.
    """
    one = tf.nest.map_structure(lambda part: getattr(part, "_value_specs", (part,))[0], spec)
    shapes = [getattr(part, "shape", tf.TensorShape(None)) for part in tf.nest.flatten(one)]
    known = all(s.rank is not None and s[1:].is_fully_defined() for s in shapes)
    return one if known else None


class DistributedModel(keras_internals.HookedModel):
    """`keras.Model`, with what Keras 3 lacks for several hosts (keras-team/keras#20585)."""

    def before_epochs(self, iterator, data_batch):
        strategy = keras_internals.strategy_of(self)
        if strategy is None:
            return
        # Keras averages the replicas' data here: wrong for several hosts and for uneven batches.
        if iterator is not None:
            data_batch = _specification(keras_internals.element_spec(iterator))
            if data_batch is None:
                batch = next(next(iter(iterator))[2])
                data_batch = tf.nest.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0], batch
                )
        with strategy.scope():
            keras_internals.build_metrics(self, data_batch)

    def epoch_logs(self, logs):
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return super().epoch_logs(logs)
        # Keras falls back to the last step's logs, a mean over uneven parts, if a metric is
        # missing from them, as the penalty is in validation.
        results = self.get_metrics_result()
        return {name: results.get(name, value) for name, value in logs.items()}

    def _reducible(self, logs):
        """Logs as Keras averages them over hosts: along an axis, which scalars lack."""
        if _hosts(self.distribute_strategy) == 1:
            return logs
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}
