"""Checkpoints that survive a crash at any moment, and resume a run exactly.

Each is one file: weights, optimizer, step counter and seed states as Keras stores them, and the
run's progress as an attribute. Its name holds its checksum, so that a damaged file is noticed; the
last two are kept, so that the one before can be used.
"""

import hashlib
import json
import math
import re
import sys

import h5py
import keras

from soar_tf import files
from soar_tf.errors import RunError

KEPT = 2
_NAME = re.compile(r"(\d{3})-(\d{6})\.([0-9a-f]{16})\.weights\.h5")
_ATTRIBUTE = "soar_tf_progress"


def save(folder, model, progress):
    """Writes a checkpoint and removes all but the newest two.

    Args:
        folder: `pathlib.Path` of the checkpoints.
        model: The compiled `RobustModel`.
        progress: JSON-serializable dictionary with at least `phase` and `epoch` (finished ones).
    """
    folder.mkdir(exist_ok=True)
    stem = f"{progress['phase']:03d}-{progress['epoch']:06d}"
    temporary = folder / ".writing.weights.h5"
    model.save_weights(temporary, overwrite=True)
    with h5py.File(temporary, "r+") as file:
        file.attrs[_ATTRIBUTE] = json.dumps(progress)
    files.sync(temporary)
    temporary.rename(folder / f"{stem}.{_checksum(temporary)}.weights.h5")
    files.sync(folder)
    for _, _, path in _found(folder)[:-KEPT]:
        path.unlink()


def newest(folder):
    """The newest undamaged checkpoint.

    Returns:
        `(path, progress)`, or `(None, None)` if there is none. Damaged files are named on stderr
        and left alone.
    """
    for _, checksum, path in reversed(_found(folder)):
        if _checksum(path) != checksum:
            print(f"Checkpoint {path.name} is damaged; using the one before.", file=sys.stderr)
            continue
        with h5py.File(path, "r") as file:
            return path, json.loads(file.attrs[_ATTRIBUTE])
    return None, None


def _found(folder):
    """`(order, checksum, path)` of every checkpoint, oldest first."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("*.weights.h5"))
    return sorted(((m[1], m[2]), m[3], path) for m, path in matches if m)


def _checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


class CheckpointEachEpoch(keras.callbacks.Callback):
    """Saves a checkpoint and the log's rows after each epoch; ends a run whose loss is not finite.

    Args:
        folder: `pathlib.Path` of the checkpoints.
        phase: The phase's number and name.
        rows: The log's rows so far (a list of dictionaries, extended in place).
        write_log: Callable that writes the rows to the log file.
    """

    def __init__(self, folder, phase, rows, write_log):
        super().__init__()
        self.folder, self.rows, self.write_log = folder, rows, write_log
        self.number, self.name = phase

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(logs["loss"]):
            kind = "NaN" if math.isnan(logs["loss"]) else "infinite"
            raise RunError(f"The loss became {kind} in epoch {epoch + 1} of phase {self.name!r}")
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"phase": self.name, "epoch": epoch + 1, "learning_rate": rate, **logs}
        self.rows.append(row)
        save(
            self.folder,
            self.model,
            {"phase": self.number, "epoch": epoch + 1, "rows": self.rows},
        )
        self.write_log(self.rows)
