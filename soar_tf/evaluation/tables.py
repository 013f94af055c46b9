"""The tables of a `State`: one row per example, and their form in its file."""

import math

import numpy as np

ROW = np.dtype(
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
STORED = np.dtype([("row", "<i8"), *ROW.descr])


def read_array(log, entry, place, dtype, shape):
    """An entry's data, after its type and size have been compared with what is stored."""
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError("an array of another form")
    if dtype.itemsize * math.prod(shape) != entry["bytes"]:
        raise ValueError("an array of another size")
    return log.array(place, dtype, shape)


def with_rows(table, rows):
    """Rows of a table, with a column that says which."""
    known = [name for name in STORED.names if name in table.dtype.names]
    stored = np.empty(len(rows), [("row", "<i8"), *((name, ROW[name]) for name in known)])
    stored["row"] = rows
    for name in known:
        stored[name] = table[name][rows]
    return stored


def columns(pairs):
    """The type of stored rows; those of other versions may lack columns."""
    dtype = np.dtype([(str(name), str(form)) for name, form in pairs])
    if "row" not in dtype.names or any(STORED[name] != dtype[name] for name in dtype.names):
        raise ValueError("columns of another form")
    return dtype


def empty(count):
    """A table `[count]` of which nothing is known."""
    table = np.zeros(count, ROW)
    for name in ROW.names:
        if ROW[name].kind == "f":
            table[name] = np.nan
    return table
