"""Measurements within epochs, for epochs that take too long to wait for."""

import csv
import io
from pathlib import Path

import keras

from soar_tf import files
from soar_tf.callbacks.epoch_callback import EpochCallback
from soar_tf.errors import InputError
from soar_tf.validation import check_integer


class EverySteps(keras.callbacks.Callback):
    """Makes the measurements of another callback every `steps` training steps as well.

    Give it to `fit` instead of the other callback, which still measures at the end of each epoch.
    Measurements within epochs are in `rows` and not in the logs of `fit`, which cover whole epochs.
    The current weights are measured, without the optimizer's averaging.

    Args:
        callback: One of this package's callbacks, such as `soar_tf.callbacks.RobustAccuracy`.
        steps: Number of training steps between measurements, at least 1.
        path: CSV file that is rewritten after each measurement, with one row per measurement;
            `None` for no file.

    Attributes:
        rows: A dictionary per measurement: `epoch` (from 1), `step` (training steps since the start
            of the first `fit`), and the results.

    Raises:
        InputError: If an argument has the wrong type or is out of range.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["train"].take(64)
    >>> model = soar_tf.RobustModel(soar_tf.networks.mlp(width=0.1), "standard")
    >>> model.compile("sgd")
    >>> robust = soar_tf.callbacks.EverySteps(
    ...     soar_tf.callbacks.RobustAccuracy(digits, attack="fgsm:epsilon=0.1"), steps=2)
    >>> history = model.fit(digits.float_images(), digits.labels, batch_size=16, epochs=2,
    ...                     verbose=0, callbacks=[robust])
    >>> [(row["epoch"], row["step"]) for row in robust.rows]
    [(1, 2), (1, 4), (2, 6), (2, 8)]
    """

    def __init__(self, callback, steps, path=None):
        super().__init__()
        if not isinstance(callback, EpochCallback):
            raise InputError(
                "`callback` must be one of soar_tf.callbacks, such as RobustAccuracy. "
                f"Received: {type(callback).__name__}."
            )
        self.callback = callback
        self.steps = check_integer(steps, "steps", minimum=1)
        self.path = None if path is None else Path(path)
        self.rows, self._done, self._epoch, self._first = [], 0, 0, 0

    def checkpoint_state(self):
        """The state to save in a checkpoint, JSON-serializable."""
        return {"done": self._done, "rows": self.rows, "inner": self.callback.checkpoint_state()}

    def restore_state(self, state):
        """Restores the result of `checkpoint_state` before `fit` resumes; ignores anything else."""
        if not isinstance(state, dict):
            return
        done, rows = state.get("done"), state.get("rows")
        if type(done) is int and isinstance(rows, list) and all(isinstance(r, dict) for r in rows):
            self._done, self.rows = done, rows
        self.callback.restore_state(state.get("inner"))

    def set_model(self, model):
        super().set_model(model)
        self.callback.set_model(model)

    def set_params(self, params):
        super().set_params(params)
        self.callback.set_params(params)

    def on_train_begin(self, logs=None):
        self.callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self.callback.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        before = self._done
        self._done += batch - self._first + 1  # several with Keras's `steps_per_execution`
        if self._done // self.steps == before // self.steps:
            return
        results = {k: float(v) for k, v in self.callback.measure(self._epoch).items()}
        self.rows.append({"epoch": self._epoch + 1, "step": self._done, **results})
        if self.path is not None:
            self._write()

    def on_epoch_end(self, epoch, logs=None):
        self.callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        self.callback.on_train_end(logs)

    def _write(self):
        text = io.StringIO()
        columns = list(dict.fromkeys(column for row in self.rows for column in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_text(self.path, text.getvalue())
