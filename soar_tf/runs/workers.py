"""A run that several processes share: who writes, and how all go on from one state.

Every process does the same work. The chief (rank 0) owns the run directory; the others write to
a temporary folder, into which the chief's newest checkpoint is copied first. So no shared file
system is needed, and a process that returns goes on from the last checkpoint, too.
"""

import contextlib
import hashlib
import json
import sys
import tempfile
from pathlib import Path

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.runs import checkpoints, run_directory
from soar_tf.training import strategies


def check_settings(strategy, config, examples):
    """Refuses settings that do not work on several replicas.

    Args:
        strategy: The strategy, or `None`.
        config: The resolved `TrainConfig`.
        examples: Number of training images.

    Raises:
        InputError: If the batch does not divide evenly among the replicas, or for XLA.
    """
    replicas = strategies.describe(strategy)["replicas"]
    if replicas == 1:
        return
    batch = min(config.batch_size, examples, config.limit or examples)
    if batch % replicas:
        raise InputError(
            f"`batch_size` must be divisible by the {replicas} replicas. Received: {batch}."
        )
    if config.jit:
        raise InputError("`jit` works on one replica only: XLA compiles for one device.")


def say_what_changed(strategy, manifest):
    """Says on stderr that a run goes on with other replicas than it began with."""
    before, now = manifest.get("distribution"), strategies.describe(strategy)
    before = before.get("replicas") if isinstance(before, dict) else None
    if type(before) is int and before != now["replicas"]:
        print(
            f"This run began with {before} replicas and goes on with "
            f"{now['replicas']}: the result is equal within rounding, not bit by bit.",
            file=sys.stderr,
        )


@contextlib.contextmanager
def open_run(strategy, workdir, config, fingerprint):
    """Opens this process's run directory, in the chief's state.

    Args:
        strategy: The strategy, or `None`.
        workdir: The run's folder, for the chief.
        config: The resolved `TrainConfig`.
        fingerprint: The data's fingerprint.

    Yields:
        A `RunDirectory`.

    Raises:
        InputError: In all processes, if the chief cannot use the folder, or if the processes'
            settings, data or code versions differ.
    """
    if strategies.hosts(strategy) == 1:
        with run_directory.RunDirectory(workdir, config) as folder:
            yield folder
        return
    values = {k: v for k, v in config.to_dict().items() if k != "data_dir"}
    settings = json.dumps([values, fingerprint], sort_keys=True, default=str)
    # Before anything is written: what differs must not leave the chief's configuration behind.
    _agree_on_settings(strategy, settings)
    with contextlib.ExitStack() as stack:
        error, folder = None, None
        try:
            if strategies.rank(strategy) != 0:
                workdir = stack.enter_context(tempfile.TemporaryDirectory(prefix="soar-tf-"))
            folder = stack.enter_context(run_directory.RunDirectory(workdir, config))
        except InputError as refused:
            error = str(refused)
        _agree_on_errors(strategy, error)
        _take_state(strategy, folder)
        yield folder


def _agree_on_settings(strategy, settings):
    """Raises the same error everywhere if settings differ."""
    digests = strategies.gather(strategy, hashlib.sha256(settings.encode()).digest())
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise InputError(
                f"Every process must be given the same settings and data. Rank {rank}'s differ "
                "from rank 0's."
            )


def _agree_on_errors(strategy, error):
    """Raises the same error everywhere if one process has one."""
    for rank, answer in enumerate(strategies.gather(strategy, (error or "").encode())):
        if answer:
            raise InputError(f"rank {rank}: {answer.decode()}")


def _take_state(strategy, folder):
    """Copies the chief's manifest and newest checkpoint into the other processes' folders."""
    name, data = "", b""
    if strategies.rank(strategy) == 0:
        path, _ = checkpoints.newest(folder / run_directory.CHECKPOINTS)
        if path is not None:
            name, data = path.name, path.read_bytes()
    header = json.dumps({"name": name, "manifest": folder.manifest()}).encode()
    header = json.loads(strategies.from_chief(strategy, header))
    data = strategies.from_chief(strategy, data)
    if strategies.rank(strategy) == 0:
        return
    folder.update_manifest(**header["manifest"])
    if header["name"]:
        target = folder / run_directory.CHECKPOINTS
        target.mkdir(exist_ok=True)
        with files.replacing(target / Path(header["name"]).name) as temporary:
            temporary.write_bytes(data)
