"""The progress of an evaluation, in memory and, if wanted, in a file that survives a kill.

What an attack did to an example is one row of a table, one table for each part of an evaluation (an
attack, a stage of AutoAttack, a radius of a curve). Rows are filled batch by batch; resuming means
attacking the rows that are not done. A state file grows by what is new (`state_log`): JSON and the
bytes of NumPy arrays, never pickled objects.
"""

import hashlib
import json
import os
import re
import time
from pathlib import Path

import numpy as np

from soar_tf.errors import InputError
from soar_tf.evaluation import kept, state_reading, tables
from soar_tf.evaluation.state_log import StateLog

# At most this share of the time may go into writing the file; a kill then loses as little.
_WRITING_SHARE = 0.05

# Rises with a version in which an attack gives other outcomes: what it began cannot be mixed.
_ATTACKS = 1

# What files of version 0.1 do not say.
_NEWER = ("shard", "version_of_the_attacks")


class State:
    """What an evaluation has found so far.

    Args:
        path: File to keep it in; if it exists, the evaluation resumes from it. `None` keeps it in
            memory alone.

    Attributes:
        resumed: Whether it came from a file.
        advanced: Whether anything has been found since.
        seconds: Maps each part's key to the time spent on it, over all runs.
        sections: JSON values that an evaluation keeps beside the tables.
        kept: A `Kept`, which maps positions of examples to their adversarial images.

    Raises:
        InputError: If the file cannot be read, is damaged, or is no state file; if its folder does
            not exist.

    Example:

    >>> import soar_tf, tempfile
    >>> digits = soar_tf.datasets.load("digits")["test"].take(8)
    >>> file, network = tempfile.mkdtemp() + "/digits.state", soar_tf.networks.mlp()
    >>> for _ in range(2):  # the second time there is nothing left to do
    ...     result = soar_tf.evaluate(
    ...         network, digits.float_images(), digits.labels, ["fgsm"], state=file)
    >>> soar_tf.evaluation.State(file).resumed
    True
    """

    def __init__(self, path=None):
        if not isinstance(path, (str, os.PathLike, type(None))):
            raise InputError(f"`state` must be a path or a State. Received: {path!r}.")
        self.path = None if path is None else Path(path)
        self.resumed = self.advanced = False
        self.seconds, self.sections, self.kept = {}, {}, kept.Kept()
        self._tables, self._identity, self._outputs = {}, {}, None
        self._stored = {}  # rows from the file, of tables that nobody has asked for
        self._log, self._new, self._new_rows = None, set(), {}
        self._written, self._cost = -np.inf, 0.0
        if self.path is not None:
            self._open()

    def match(self, *, of="", **identity):
        """Binds the state to what it belongs to, or refuses it if it belongs to something else.

        Args:
            of: Regular expression that the keys of the parts begin with which depend on `identity`.
            **identity: JSON-serializable values under the names that the refusal shall use.

        Raises:
            InputError: If a value differs from the stored one, or is missing though there are
                outcomes of such parts; the state is not changed.
        """
        identity = json.loads(json.dumps({"version_of_the_attacks": _ATTACKS, **identity}))
        depends = any(re.match(of, key) for key in self._stored)
        for name, value in identity.items():
            if depends and name not in self._identity and name not in _NEWER:
                raise InputError(
                    f"`state` {self.path} is damaged: it does not say of which "
                    f"{name.replace('_', ' ')} its outcomes are; remove it to start anew."
                )
            stored = self._identity.get(name, value)
            if stored != value:
                raise InputError(
                    f"`state` {self.path} belongs to another evaluation: {name.replace('_', ' ')} "
                    f"differs ({_short(stored)} there, {_short(value)} here); use another file."
                )
        if self._identity != self._identity | identity:
            self._identity |= identity
            self._new.add(("identity", ""))

    def match_outputs(self, logits, tolerance):
        """Refuses the state if the network's outputs are others, relative to their range.

        Networks that are functions have no weights to compare; the first 256 outputs tell them
        apart, and tell that a network is random, which cannot go on as if it had not stopped.
        """
        logits = logits[:256]
        if self._outputs is None:
            self._outputs = logits.copy()
            self._new.add(("outputs", ""))
        stored, scale = self._outputs, np.ptp(logits) + 1e-12
        if stored.shape != logits.shape or not np.allclose(
            stored / scale, logits / scale, rtol=0.0, atol=tolerance, equal_nan=True
        ):
            raise InputError(
                f"`state` {self.path} belongs to another evaluation: the network's outputs differ; "
                "use another file (a network with random outputs cannot be resumed)."
            )

    def check_possible(self, labels, classes, shape, positions=None):
        """Refuses a state that holds what no evaluation of these images can have found.

        Args:
            labels: int `[N]`.
            classes: Number of classes.
            shape: Shape of one image.
            positions: int `[N]`, the images' positions in the whole set; `None` for 0 to N - 1.

        Raises:
            InputError: See `soar_tf.evaluation.state_reading.check_possible`.
        """
        if self._tables:
            return  # looked at before the first part began
        content = state_reading.Content(rows=self._stored, kept=self.kept)
        state_reading.check_possible(self.path, content, labels, classes, shape, positions)

    def table(self, key, count):
        """The structured array `[count]` of one part: `done`, `broken`, `prediction` and so on.

        It is to be read; `fill` changes it.
        """
        if key not in self._tables:
            table = tables.empty(count)
            for stored in self._stored.pop(key, ()):
                for name in set(stored.dtype.names) - {"row"}:
                    table[name][stored["row"]] = stored[name]
            self._tables[key] = table
        return self._tables[key]

    def fill(self, key, rows, values, seconds=0.0):
        """Sets rows of a part's table, to be written by the next `save`.

        Args:
            key: The part's key; `table` has been called with it.
            rows: int `[n]`.
            values: Structured array `[n]`, see `table`.
            seconds: The time that it took.
        """
        self._tables[key][rows] = values
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds
        self.advanced = True
        if self.path is not None:
            self._new_rows.setdefault(key, []).append(np.asarray(rows, np.int64))

    def set_section(self, name, value):
        """Keeps a JSON value beside the tables, and writes the file."""
        self.sections[name] = json.loads(json.dumps(value))
        self._new.add(("section", name))
        self.advanced = True
        self.save(always=True)

    def save(self, *, always=False):
        """Adds what is new to the file, unless that would take too large a share of the time.

        Raises:
            RunError: If something else has written to the file.
            OSError: If it cannot be written.
        """
        begun = time.monotonic()
        due = (begun - self._written) * _WRITING_SHARE >= self._cost
        due = due or self.kept.waiting_bytes > kept.MEMORY_BYTES
        if self.path is None or not (always or due):
            return
        record = self._record()
        try:
            if self._log is None:
                self._write_whole()
            elif record:
                self._noted(self._log, record, self._log.append(record))
        except FileNotFoundError:  # somebody has removed it
            self._write_whole()
        self._new, self._new_rows = set(), {}
        self._written = time.monotonic()
        self._cost = self._written - begun

    def _record(self, everything=False):
        """What is new, or all but the images: pairs of an entry and its data."""
        nothing = np.empty(0, np.uint8)
        record = []
        if everything or ("identity", "") in self._new:
            record.append(({"kind": "identity", "values": self._identity}, nothing))
        if self._outputs is not None and (everything or ("outputs", "") in self._new):
            shape = {"dtype": self._outputs.dtype.str, "shape": self._outputs.shape}
            record.append(({"kind": "outputs", **shape}, self._outputs))
        for name, value in self.sections.items():
            if everything or ("section", name) in self._new:
                record.append(({"kind": "section", "name": name, "value": value}, nothing))
        for key in self._tables if everything else self._new_rows:
            rows = np.flatnonzero(self._tables[key]["done"])
            if not everything:
                rows = np.concatenate(self._new_rows[key])
            record.append(self._rows(key, tables.with_rows(self._tables[key], rows)))
        if everything:
            record += [self._rows(key, part) for key in self._stored for part in self._stored[key]]
        elif self.kept.waiting:
            record.append(self.kept.record(self.kept.waiting))
        return record

    def _rows(self, key, stored):
        columns = [[name, stored.dtype[name].str] for name in stored.dtype.names]
        seconds = self.seconds.get(key, 0.0)
        return {"kind": "rows", "key": key, "seconds": seconds, "columns": columns}, stored

    def _write_whole(self):
        """Writes a new file: there is none yet, or one of an earlier form, or it was removed."""

        def records():
            yield self._record(everything=True)
            for positions in self.kept.parts():
                images.append([self.kept.record(positions)])
                yield images[-1]

        images = []
        self._log, (_, *places) = StateLog.create(self.path, records())
        for record, found in zip(images, places, strict=True):
            self._noted(self._log, record, found)

    def _noted(self, log, record, places):
        """Frees the images of a record that is written."""
        for (entry, data), place in zip(record, places, strict=True):
            if entry["kind"] == "images":
                self.kept.written(log, {**entry, "bytes": data.nbytes}, place)

    def _open(self):
        if not self.path.exists():
            if not self.path.absolute().parent.is_dir():
                raise InputError(f"`state` {self.path}: its folder does not exist.")
            return
        content = state_reading.read(self.path)
        self.seconds, self.sections, self.kept = content.seconds, content.sections, content.kept
        self._identity, self._outputs = content.identity, content.outputs
        self._stored = content.rows
        # Links are not written through: the file takes the link's place.
        self._log = None if self.path.is_symlink() else content.log
        self.resumed = True


def fingerprint(*arrays):
    """Sha256 (hex, 16 digits) over shapes, types and values of arrays, or images read in chunks."""
    digest = hashlib.sha256()
    for array in arrays:
        parts = array.chunks() if hasattr(array, "chunks") else [np.asarray(array)]
        array = array if hasattr(array, "chunks") else parts[0]
        digest.update(f"{array.shape} {array.dtype.str};".encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]


def _short(value):
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 120 else text[:117] + "..."
