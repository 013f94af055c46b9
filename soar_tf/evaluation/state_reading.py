"""Reading state files, which anybody may have written: what is in them has to be possible."""

import dataclasses
import math

import numpy as np

from soar_tf.errors import InputError
from soar_tf.evaluation import old_state, tables
from soar_tf.evaluation.kept import Kept
from soar_tf.evaluation.state_log import StateLog

MAX_BYTES = 8 * 2**30
"""Largest size of the tables in a state file, in bytes; images stay in the file."""

_MAX_SECONDS = 1e10


@dataclasses.dataclass
class Content:
    """What a state file holds.

    Attributes:
        log: The `StateLog`; `None` for a file of version 0.1.
        identity: What the state belongs to: names to JSON values.
        seconds: Maps each part's key to the time spent on it.
        sections: JSON values that an evaluation keeps beside the tables.
        outputs: float32 `[n, C]`, the network's first logits, or `None`.
        rows: Maps each part's key to a list of structured arrays, see `tables`.
        kept: The `Kept` images.
    """

    log: StateLog | None = None
    identity: dict = dataclasses.field(default_factory=dict)
    seconds: dict = dataclasses.field(default_factory=dict)
    sections: dict = dataclasses.field(default_factory=dict)
    outputs: np.ndarray | None = None
    rows: dict = dataclasses.field(default_factory=dict)
    kept: Kept = dataclasses.field(default_factory=Kept)


def read(path):
    """Reads a state file of any version.

    Args:
        path: The file.

    Returns:
        The `Content`.

    Raises:
        InputError: If it cannot be read, is damaged, or is no state file.
    """
    try:
        log = StateLog.open(path)
        content = _of_old(old_state.read(path)) if log is None else _of_log(log, path)
        _check_form(content)
    except OSError as error:
        raise InputError(f"`state` {path} cannot be read: {error.strerror}.") from None
    except InputError:
        raise
    except Exception:  # zipfile, zlib, NumPy and json raise a dozen types on a foreign file
        raise InputError(f"`state` {path} is no state file of an evaluation.") from None
    return content


def check_possible(path, content, labels, classes, shape, positions=None):
    """Refuses what no evaluation of these images can have found.

    Args:
        path: The file.
        content: A `Content`.
        labels: int `[N]`.
        classes: Number of classes.
        shape: Shape of one image.
        positions: int `[N]`, the images' positions in the set that `kept` counts by; `None` for 0
            to N - 1.

    Raises:
        InputError: For rows beyond the images, outcomes that contradict their labels, or images
            that cannot be adversarial ones.
    """
    positions = np.arange(len(labels)) if positions is None else positions
    broken = np.zeros(len(labels), bool)
    try:
        for rows in (part for parts in content.rows.values() for part in parts):
            tables.check(rows, labels, classes, math.prod(shape))
            broken[rows["row"][rows["broken"]]] = True
        content.kept.check(shape, set(positions[broken].tolist()))
    except ValueError as error:
        raise InputError(
            f"`state` {path} is damaged: it holds {error}; remove it to start anew."
        ) from None


def _of_log(log, path):
    content, total = Content(log), 0
    for entry, place in log.entries():
        if entry["kind"] == "images":
            content.kept.written(log, entry, place)
            continue
        total += entry["bytes"]
        if total > MAX_BYTES:
            raise InputError(
                f"`state` {path} must hold at most {MAX_BYTES} bytes beside its images "
                "(soar_tf.evaluation.state_reading.MAX_BYTES)."
            )
        if entry["kind"] == "identity":
            content.identity |= entry["values"]
        elif entry["kind"] == "section":
            content.sections[entry["name"]] = entry["value"]
        elif entry["kind"] == "outputs":
            dtype, shape = np.dtype(entry["dtype"]), tuple(map(int, entry["shape"]))
            content.outputs = tables.read_array(log, entry, place, dtype, shape)
        elif entry["kind"] == "rows":
            content.seconds[entry["key"]] = entry["seconds"]
            dtype = tables.columns(entry["columns"])
            shape = (entry["bytes"] // dtype.itemsize,)
            rows = tables.read_array(log, entry, place, dtype, shape)
            content.rows.setdefault(entry["key"], []).append(rows)
        else:
            raise ValueError("an entry that no version writes")
    return content


def _of_old(old):
    # Version 0.1 named itself; its attacks were the first ones.
    named = {name: value for name, value in old["identity"].items() if name != "soar_tf"}
    content = Content(
        identity={"version_of_the_attacks": 1, **named},
        seconds=old["seconds"],
        sections=old["sections"],
        outputs=old["outputs"],
    )
    for key, table in old["tables"].items():
        content.rows[key] = [tables.with_rows(table, np.flatnonzero(table["done"]))]
    for position, image in old["kept"].items():
        if image.dtype != np.float32:
            raise ValueError("images of another form")
        content.kept.add(position, image)
    return content


def _check_form(content):
    """Refuses names, times and outputs of another form than an evaluation writes."""
    for names in (content.identity, content.seconds, content.sections, content.rows):
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names):
            raise ValueError("something else than names")
    for seconds in content.seconds.values():
        if type(seconds) not in (int, float) or not 0 <= seconds <= _MAX_SECONDS:
            raise ValueError("something else than seconds")
    for rows in (part for parts in content.rows.values() for part in parts):
        tables.check_form(rows)
    outputs = content.outputs
    if outputs is not None and (outputs.dtype.kind != "f" or outputs.ndim != 2):
        raise ValueError("something else than logits")
