"""Several replicas: the only file that names `tf.distribute`.

Keras's optimizers sum gradients over the replicas, Keras's own losses are divided by their number
beforehand, and every replica sees a contiguous part of the global batch.
"""

import tensorflow as tf


def count():
    """Number of replicas in sync: 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def global_positions(local_batch_size):
    """Positions of this replica's examples in the global batch, int `[B]`.

    They key the examples' noise: replicas draw different noise, and together the noise that one
    device draws for the same global batch.
    """
    positions = tf.range(local_batch_size)
    if count() == 1:
        return positions
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return positions + local_batch_size * tf.cast(replica, positions.dtype)


def sum_gradients(gradients):
    """The gradients summed over all replicas (so that a norm is that of the global gradient)."""
    if count() == 1:
        return gradients
    context = tf.distribute.get_replica_context()
    present = [gradient for gradient in gradients if gradient is not None]
    reduced = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [None if gradient is None else next(reduced) for gradient in gradients]
