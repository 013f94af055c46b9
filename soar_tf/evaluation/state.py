"""The progress of an evaluation, in memory and, if wanted, in a file that survives a kill.

What an attack did to an example is one row of a table, one table for each part of an evaluation (an
attack, a stage of AutoAttack, a radius of a curve). Rows are filled batch by batch; going on means
attacking the rows that are not done. A state file is such tables, what they belong to, and a
checksum over both: NumPy arrays and JSON, never pickled objects.
"""

import hashlib
import io
import json
import time
from pathlib import Path

import numpy as np

import soar_tf
from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import open_zip, read_array

MAX_BYTES = 8 * 2**30
"""Largest size of a state file, in bytes."""

_MAGIC = b"soar-tf evaluation state 1 "
# At most this share of the time may go into writing the file; a kill then loses as little.
_WRITING_SHARE = 0.05
_ROW = np.dtype(
    [
        ("done", "?"),
        ("broken", "?"),
        ("broken_uint8", "?"),
        ("prediction", "<i4"),
        ("loss", "<f4"),
        ("linf", "<f4"),
        ("l2", "<f4"),
        ("l1", "<f4"),
    ]
)


class State:
    """What an evaluation has found so far.

    Args:
        path: File to keep it in; if it exists, the evaluation goes on from it. `None` keeps it in
            memory alone.

    Attributes:
        resumed: Whether it came from a file.
        advanced: Whether anything has been found since.
        seconds: Maps each part's key to the time spent on it, over all runs.
        sections: JSON values that an evaluation keeps beside the tables.
        kept: Maps positions of examples to their adversarial images.

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
        self.path = None if path is None else Path(path)
        self.resumed = self.advanced = False
        self.seconds, self.sections, self.kept = {}, {}, {}
        self._tables, self._identity, self._outputs = {}, {}, None
        self._written, self._cost = -np.inf, 0.0
        if self.path is not None:
            self._open()

    def match(self, **identity):
        """Binds the state to what it belongs to, or refuses it if it belongs to something else.

        Args:
            **identity: JSON-serializable values under the names that the refusal shall use.

        Raises:
            InputError: If a value differs from the stored one; the state is not changed.
        """
        identity = json.loads(json.dumps({"soar_tf": soar_tf.__version__, **identity}))
        for name, value in identity.items():
            stored = self._identity.get(name, value)
            if stored != value:
                raise InputError(
                    f"`state` {self.path} belongs to another evaluation: {name.replace('_', ' ')} "
                    f"differs ({_short(stored)} there, {_short(value)} here); use another file."
                )
        self._identity |= identity

    def match_outputs(self, logits, tolerance):
        """Refuses the state if the network's outputs are others, relative to their range.

        Networks that are functions have no weights to compare; the first 256 outputs tell them
        apart, and tell that a network is random, which cannot go on as if it had not stopped.
        """
        logits = logits[:256]
        if self._outputs is None:
            self._outputs = logits.copy()
        stored, scale = self._outputs, np.ptp(logits) + 1e-12
        if stored.shape != logits.shape or not np.allclose(
            stored / scale, logits / scale, rtol=0.0, atol=tolerance, equal_nan=True
        ):
            raise InputError(
                f"`state` {self.path} belongs to another evaluation: the network's outputs differ; "
                "use another file (a network with random outputs cannot be resumed)."
            )

    def table(self, key, count):
        """The structured array `[count]` of one part: `done`, `broken`, `prediction` and so on."""
        if key not in self._tables:
            self._tables[key] = _empty(count)
        return self._tables[key]

    def set_section(self, name, value):
        """Keeps a JSON value beside the tables, and writes the file."""
        self.sections[name] = json.loads(json.dumps(value))
        self.advanced = True
        self.save(always=True)

    def save(self, *, always=False):
        """Writes the file, unless that would take too large a share of the time."""
        begun = time.monotonic()
        if self.path is None or not (
            always or (begun - self._written) * _WRITING_SHARE >= self._cost
        ):
            return
        content = self._content()
        header = _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"
        with files.replacing(self.path) as temporary:
            temporary.write_bytes(header + content)
        self._written = time.monotonic()
        self._cost = self._written - begun

    def _content(self):
        keys, rows = list(self._tables), sorted(self.kept)
        about = {
            "identity": self._identity,
            "seconds": self.seconds,
            "sections": self.sections,
            "tables": keys,
        }
        arrays = {f"table{number}": self._tables[key] for number, key in enumerate(keys)}
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        if self._outputs is not None:
            arrays["outputs"] = self._outputs
        if rows:
            arrays["kept_rows"] = np.array(rows)
            arrays["kept_images"] = np.stack([self.kept[row] for row in rows])
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    def _open(self):
        if not self.path.exists():
            if not self.path.absolute().parent.is_dir():
                raise InputError(f"`state` {self.path}: its folder does not exist.")
            return
        try:
            data = files.read_bytes(self.path, f"`state` {self.path}", MAX_BYTES)
        except OSError as error:
            raise InputError(f"`state` {self.path} cannot be read: {error.strerror}.") from None
        header, _, content = data.partition(b"\n")
        if not header.startswith(_MAGIC):
            raise InputError(f"`state` {self.path} is no state file of an evaluation.")
        if header[len(_MAGIC) :].decode(errors="replace") != hashlib.sha256(content).hexdigest():
            raise InputError(
                f"`state` {self.path} is damaged: its checksum is wrong; remove it to start anew."
            )
        try:
            self._read(content)
        except InputError:
            raise
        except Exception:  # zipfile, zlib, NumPy and json raise a dozen types on a foreign file
            raise InputError(f"`state` {self.path} is no state file of an evaluation.") from None
        self.resumed = True

    def _read(self, content):
        name = f"`state` {self.path}"
        setting = "soar_tf.evaluation.state.MAX_BYTES"
        with open_zip(io.BytesIO(content), name, max_bytes=MAX_BYTES, setting=setting) as archive:
            arrays = {
                member.removesuffix(".npy"): read_array(archive, member.removesuffix(".npy"), name)
                for member in archive.namelist()
            }
        about = json.loads(arrays["about"].tobytes())
        self._identity, self.seconds = about["identity"], about["seconds"]
        self.sections = about["sections"]
        for number, key in enumerate(about["tables"]):
            self._tables[key] = _adopted(arrays[f"table{number}"])
        self._outputs = arrays.get("outputs")
        if "kept_rows" in arrays:
            rows = arrays["kept_rows"].tolist()
            self.kept = dict(zip(rows, arrays["kept_images"], strict=True))


def _empty(count):
    table = np.zeros(count, _ROW)
    for name in _ROW.names:
        if _ROW[name].kind == "f":
            table[name] = np.nan
    return table


def _adopted(stored):
    """A table from a file; columns that it does not have yet are unknown."""
    table = _empty(len(stored))
    for name in stored.dtype.names:
        table[name] = stored[name]
    return table


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
