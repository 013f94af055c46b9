"""Checkpoints that survive a crash at any moment, and resume a run exactly.

Each is one file: weights, optimizer, step counter and seed states as Keras stores them, and the
run's progress as an attribute. Its name holds its checksum, so that a damaged file is noticed; the
last two are kept, so that the one before can be used, and so is the best one, if one is chosen.

Most are of whole epochs. One within an epoch has the steps that are done in its name and its
progress, and what the metrics have of the epoch.
"""

import hashlib
import json
import math
import os
import re
import sys

import h5py
import keras
import numpy as np
import tensorflow as tf

from soar_tf import files
from soar_tf.errors import InputError, RunError
from soar_tf.models.untrusted import hdf5
from soar_tf.training import strategies


class DivergedError(RunError):
    """The loss became NaN or infinite."""


KEPT = 2
_NAME = re.compile(r"(\d{3,})-(\d{6,})(?:-(\d{9,}))?\.([0-9a-f]{16})\.weights\.h5", re.ASCII)
_SUFFIX = ".weights.h5"
_HEADER_BYTES = 4096  # what HDF5 adds for each array, generously
_ATTRIBUTE = "soar_tf_progress"


def save(folder, model, progress, best_epoch=None):
    """Writes a checkpoint and removes all but the newest two and the best one.

    Args:
        folder: `pathlib.Path` of the checkpoints.
        model: The compiled `RobustModel`.
        progress: JSON-serializable dictionary with at least `phase` and `epoch` (finished ones);
            within an epoch also `within`, with `step` (finished ones of the next epoch).
        best_epoch: Epoch of the phase whose checkpoint is kept, too, or `None`.
    """
    folder.mkdir(exist_ok=True)
    stem = f"{progress['phase']:03d}-{progress['epoch']:06d}"
    if progress.get("within"):
        stem += f"-{progress['within']['step']:09d}"
    temporary = files.unfinished(folder / f"{stem}{_SUFFIX}")
    try:
        _reserve(temporary, model, progress)
        model.save_weights(temporary, overwrite=True)
        with h5py.File(temporary, "r+") as file:
            file.attrs[_ATTRIBUTE] = json.dumps(progress)
        files.sync(temporary)
        temporary.rename(folder / f"{stem}.{_checksum(temporary)}{_SUFFIX}")
    finally:
        temporary.unlink(missing_ok=True)
    files.sync(folder)
    kept = {(progress["phase"], best_epoch, 0)}
    for order, _, path in _found(folder)[:-KEPT]:
        if order not in kept:
            path.unlink()


def _reserve(path, model, progress):
    """Fails unless a checkpoint fits on the disk.

    HDF5 crashes the whole process where a disk fills up under it, so that is found out before.
    """
    arrays = [*model.variables, *model.optimizer.variables]
    content = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in arrays)
    needed = content + _HEADER_BYTES * (len(arrays) + 8) + 2 * len(json.dumps(progress))
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, needed)


def newest(folder):
    """The newest undamaged checkpoint.

    Returns:
        `(path, progress)`, or `(None, None)` if there is none. Damaged files are named on stderr
        and left alone.
    """
    found = _found(folder)
    for position, (_, checksum, path) in reversed(list(enumerate(found))):
        if (progress := _progress(path, checksum)) is not None:
            return path, progress
        instead = "using the one before" if position else "there is none before it: starting over"
        print(f"Checkpoint {path.name} is damaged; {instead}.", file=sys.stderr)
    return None, None


def find(folder, phase, epoch, step=0):
    """The undamaged checkpoint after an epoch, or after a step of the next one; or `None`."""
    for order, checksum, path in _found(folder):
        if order == (phase, epoch, step) and _progress(path, checksum) is not None:
            return path
    return None


def load(model, path):
    """Gives a compiled model the state of a checkpoint.

    Raises:
        RunError: If it is another model's.
    """
    try:
        model.load_weights(path)
    except Exception as error:  # Keras and h5py raise anything on a foreign file
        raise RunError(
            f"The checkpoint {path} does not fit this run: {type(error).__name__}."
        ) from None


def load_best(folder, model, progress):
    """Gives a model the state of the best epoch; returns that epoch's number.

    Raises:
        RunError: If its checkpoint is damaged or missing.
    """
    epoch = progress["selection"]["best_epoch"] + 1
    if (path := find(folder, progress["phase"], epoch)) is None:
        raise RunError(
            f"The checkpoint of the best epoch, {epoch}, is damaged or missing in {folder}; "
            "train again in another workdir, or without --keep-best to get the last epoch."
        )
    load(model, path)
    return epoch


def parse_progress(text):
    """Reads a checkpoint's progress, which anybody may have written.

    Args:
        text: JSON.

    Returns:
        A dictionary with `phase` and `epoch` (ints) and `rows` (a list of dictionaries); where it
        is one within an epoch, `within` is a dictionary with `step` (an int), `metrics` (a list)
        and `logs` (a dictionary of numbers).

    Raises:
        InputError: If it is anything else.
    """
    progress = files.parse_json(text, "the progress of a checkpoint")
    counts = [progress.get(name) for name in ("phase", "epoch")]
    rows, environments = (progress.get(name, []) for name in ("rows", "environments"))
    selection = progress.get("selection") or {}
    right = (
        all(type(count) is int and 0 <= count < 2**31 for count in counts)
        and all(_is_list_of_dicts(part) for part in (rows, environments))
        and isinstance(selection, dict)
        and _is_within(progress.get("within"))
    )
    if not right:
        raise InputError("the progress of a checkpoint must hold phase, epoch and rows.")
    return {"rows": [], **progress}


def metric_arrays(metrics):
    """The metrics' values in a checkpoint within an epoch, as arrays.

    Args:
        metrics: A list of lists of numbers or of nested lists of numbers, from JSON.

    Returns:
        A list of float64 arrays.

    Raises:
        InputError: If it is anything else.
    """
    try:
        arrays = [np.array(values, np.float64) for values in metrics]
    except (ValueError, TypeError):
        arrays = [np.zeros(())]
    if not all(array.ndim and len(array) for array in arrays):
        raise InputError("the metrics of a checkpoint must be lists of numbers.")
    return arrays


def _is_within(value):
    if value is None:
        return True
    if not isinstance(value, dict) or not isinstance(value.get("metrics"), list):
        return False
    logs = value.get("logs")
    if not isinstance(logs, dict) or not all(type(n) in (int, float) for n in logs.values()):
        return False
    return type(value.get("step")) is int and 0 < value["step"] < 2**31


def _is_list_of_dicts(value):
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _progress(path, checksum):
    """The progress in a checkpoint, or `None` if the file is damaged."""
    try:
        if _checksum(path) != checksum:
            return None
        hdf5.count_elements(path, str(path))
        with h5py.File(path, "r") as file:
            return parse_progress(file.attrs[_ATTRIBUTE])
    except InputError as error:
        print(error, file=sys.stderr)
        return None
    except Exception:  # h5py raises anything on a foreign file
        return None


def _found(folder):
    """`((phase, epoch, step), checksum, path)` of every checkpoint, oldest first."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob(f"*{_SUFFIX}"))
    return sorted(((int(m[1]), int(m[2]), int(m[3] or 0)), m[4], path) for m, path in matches if m)


def _checksum(path):
    with files.open_regular(path, follow=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


class CheckpointEachEpoch(keras.callbacks.Callback):
    """Saves a checkpoint and the log's rows after each epoch; ends a run whose loss is not finite.

    Args:
        folder: `pathlib.Path` of the checkpoints.
        phase: The phase's number and name.
        progress: The run's progress: a dictionary with the log's `rows` so far, extended in place.
        write_log: Callable that writes the rows to the log file.
        selection: The phase's `soar_tf.runs.selection.Selection`, or `None`.
        check_place: Callable that refuses to write where the folder is not the run's any more.
        stateful: The phase's callbacks whose state belongs into checkpoints: they have
            `checkpoint_state` and `restore_state`.
    """

    def __init__(
        self,
        folder,
        phase,
        progress,
        write_log,
        selection=None,
        check_place=lambda: None,
        stateful=(),
    ):
        super().__init__()
        self.check_place = check_place
        self.folder, self.progress, self.write_log = folder, progress, write_log
        self.number, self.name = phase
        self.selection, self.stateful = selection, stateful

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in (logs or {}).items()}
        for name in ("loss", "val_loss"):
            if not math.isfinite(value := logs.get(name, 0.0)):
                kind = "NaN" if math.isnan(value) else "infinite"
                what = "loss" if name == "loss" else "validation loss"
                raise DivergedError(
                    f"The {what} became {kind} in epoch {epoch + 1} of phase {self.name!r}"
                )
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"phase": self.name, "epoch": epoch + 1, "learning_rate": rate, **logs}
        self.progress["rows"].append(row)
        self.progress |= {"phase": self.number, "epoch": epoch + 1, "selection": None}
        if self.selection is not None:
            self.progress["selection"] = self.selection.state()
        self.save({})
        with files.as_run_error(self.folder.parent):
            self.write_log(self.progress["rows"])

    def save(self, place):
        """Saves a checkpoint now.

        Args:
            place: What is in its progress and not in the run's: where in an epoch it is.
        """
        selection = self.progress.get("selection")
        if self.progress["phase"] != self.number:
            selection = None  # of the phase before
        progress = {**self.progress, "phase": self.number, "selection": selection, **place}
        if states := [callback.checkpoint_state() for callback in self.stateful]:
            progress["callbacks"] = states
        best_epoch = None if selection is None else selection["best_epoch"] + 1
        self.check_place()
        with files.as_run_error(self.folder.parent), strategies.workers_may_stop():
            # Other workers read and write with this one, and may be lost meanwhile.
            save(self.folder, self.model, progress, best_epoch)
