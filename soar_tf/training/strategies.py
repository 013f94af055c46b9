"""Distribution strategies: making one, and passing bytes between its processes."""

import contextlib
import faulthandler
import functools
import os
import sys

import numpy as np
import tensorflow as tf

from soar_tf.errors import InputError, RunError

_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


class WorkerLost(RunError):
    """Another process of the run stopped; the same command on every host goes on."""


def make(cluster, *, timeout=300):
    """Makes the strategy of a cluster; for several hosts, waits until all have come.

    Args:
        cluster: A `soar_tf.runs.cluster.Cluster`.
        timeout: Seconds to wait for the other hosts.

    Returns:
        A `tf.distribute.Strategy`, or `None` for a cluster without one.

    Raises:
        InputError: If a host has no address or the own port is taken.
        WorkerLost: If a host goes away while connecting.
        RunError: If a host does not come in time.
    """
    if cluster.strategy is None:
        return None
    if cluster.strategy == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    cluster.check_reachable()
    os.environ["TF_CONFIG"] = cluster.tf_config()
    cluster.meet(timeout)
    # Should a process go away now, TensorFlow's constructor waits for it without limit, holding
    # Python's lock: only this timer, which needs no Python, can end the process (with code 1).
    print(f"Connecting {len(cluster.hosts)} workers, {timeout:g} s at most.", file=sys.stderr)
    nowhere = open(os.devnull, "w")  # noqa: SIM115 (the timer writes a traceback)
    faulthandler.dump_traceback_later(timeout, exit=True, file=nowhere)
    try:
        with workers_may_stop():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError) as error:
        if isinstance(error, RunError):
            raise
        raise InputError(f"`strategy` multi-worker could not start: {error}.") from None
    finally:
        faulthandler.cancel_dump_traceback_later()
        nowhere.close()


def scope(strategy):
    """The strategy's scope, or a context that does nothing for `None`."""
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def describe(strategy):
    """Strategy, replicas and hosts, JSON-serializable, for a run's manifest."""
    if strategy is None:
        return {"strategy": None, "replicas": 1, "hosts": 1}
    name = "multi-worker" if _is_multi_worker(strategy) else "mirrored"
    replicas = strategy.num_replicas_in_sync
    return {"strategy": name, "replicas": replicas, "hosts": hosts(strategy)}


def _is_multi_worker(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def hosts(strategy):
    """Number of processes that train together."""
    return strategy.extended._num_workers if _is_multi_worker(strategy) else 1


def rank(strategy):
    """This process's number among them; 0 is the chief, which alone writes results."""
    return strategy.extended._id_in_cluster if _is_multi_worker(strategy) else 0


def gather(strategy, payload):
    """Every process's bytes, in the order of ranks. All processes must call it together."""
    if hosts(strategy) == 1:
        return [payload]
    sizes = np.zeros(hosts(strategy), np.int32)
    sizes[rank(strategy)] = len(payload)
    sizes = _summed(strategy, sizes)
    table = np.zeros((len(sizes), -(-int(sizes.max()) // 4)), np.int32)
    table[rank(strategy)] = _padded(payload, table.shape[1])
    rows = _summed(strategy, table)
    return [row.tobytes()[:size] for row, size in zip(rows, sizes, strict=True)]


def distributed(strategy, build):
    """The batches of a pipeline for `fit`; of several hosts, each reads the rows of its replicas.

    Args:
        strategy: The strategy, or `None`.
        build: Called with `(k, n)`, gives the `tf.data.Dataset` of the k-th of n parts of every
            batch, see `soar_tf.datasets.training_pipeline`.

    Returns:
        A `tf.data.Dataset` or, for several hosts, a `tf.distribute.DistributedDataset` whose
        `own_part` is the `tf.data.Dataset` of this host's first replica.
    """
    if hosts(strategy) == 1:
        return build((0, 1))
    total = strategy.num_replicas_in_sync
    local = total // hosts(strategy)
    parts = [build((rank(strategy) * local + k, total)) for k in range(local)]
    # One batch for each replica in turn.
    turns = tf.data.Dataset.choose_from_datasets(
        parts, tf.data.Dataset.range(local).repeat(), stop_on_empty_dataset=True
    )
    batches = strategy.distribute_datasets_from_function(lambda _: turns if local > 1 else parts[0])
    batches.own_part = parts[0]
    return batches


def from_chief(strategy, payload):
    """The chief's bytes, in every process; the others' `payload` is ignored."""
    if hosts(strategy) == 1:
        return payload
    chief = rank(strategy) == 0
    size = int(_summed(strategy, np.int32([len(payload) if chief else 0]))[0])
    words = -(-size // 4)
    row = _padded(payload, words) if chief else np.zeros(words, np.int32)
    return _summed(strategy, row).tobytes()[:size]


def _padded(payload, words):
    return np.frombuffer(payload.ljust(4 * words, b"\0"), np.int32)


def summing(strategy):
    """A function that sums int32 arrays of one shape over the processes, each counted once.

    All processes must call it together. It is traced at its first call.

    Args:
        strategy: The strategy of several hosts.

    Returns:
        Callable from an int32 array to their sum, an array like it.
    """
    local = strategy.num_replicas_in_sync // hosts(strategy)

    def add(own):
        context = tf.distribute.get_replica_context()
        first = tf.cast(context.replica_id_in_sync_group % local == 0, own.dtype)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, own * first)

    # A `partial` is a function of its own for TensorFlow, which else warns of retracing.
    run = tf.function(functools.partial(strategy.run, add), autograph=False)

    def summed(values):
        with workers_may_stop():
            return strategy.experimental_local_results(run(args=(tf.constant(values),)))[0].numpy()

    return summed


def _summed(strategy, values):
    """The sum over processes of an int32 array, each process counted once."""
    return values if values.size == 0 else summing(strategy)(values)


@contextlib.contextmanager
def workers_may_stop():
    """Turns TensorFlow's errors after the loss of a process into a `WorkerLost`."""
    try:
        yield
    except tf.errors.OpError as error:
        lost = isinstance(error, _LOST)
        if not (lost or "Collective ops is aborted" in str(error)):
            raise
        raise WorkerLost(
            "another worker stopped; give the same command on every host again, and the run "
            "resumes from the last checkpoint."
        ) from None
