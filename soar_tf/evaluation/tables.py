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


def check_form(rows):
    """Refuses stored rows without an outcome, or of another form than `with_rows` gives.

    Raises:
        ValueError, KeyError: If they are.
    """
    for name in rows.dtype.names:
        if rows.dtype[name].kind == "b" and rows[name].view(np.uint8).max(initial=0) > 1:
            raise ValueError("truth values that are neither true nor false")
    if rows["row"].min(initial=0) < 0 or not rows["done"].all():
        raise ValueError("rows without an outcome")
    if not {"broken", "prediction", "linf", "l2"} <= set(rows.dtype.names):
        raise ValueError("rows without columns that all versions have")


def check(rows, labels, classes, size):
    """Refuses stored rows that cannot be outcomes for these images.

    Args:
        rows: Rows that pass `check_form`.
        labels: int `[N]`.
        classes: Number of classes.
        size: Number of values in an image.

    Raises:
        ValueError: With what the rows hold.
    """
    if rows["row"].max(initial=-1) >= len(labels):
        raise ValueError(f"outcomes of other images than these {len(labels)}")
    if rows["prediction"].min(initial=0) < 0 or rows["prediction"].max(initial=0) >= classes:
        raise ValueError(f"predictions of other classes than these {classes}")
    if (~rows["broken"] & (rows["prediction"] != labels[rows["row"]])).any():
        raise ValueError("images that withstood an attack, but are misclassified")
    # Of changes of pixels in [0, 1], up to rounding; NaN fails every comparison.
    linf, l2 = (rows[name].astype(np.float64) for name in ("linf", "l2"))
    possible = (linf >= 0) & (linf <= _more(1.0)) & (linf <= _more(l2))
    possible &= l2 <= _more(math.sqrt(size) * linf)
    if "l1" in rows.dtype.names and not np.isnan(rows["l1"]).all():  # version 0.1 had none
        l1 = rows["l1"].astype(np.float64)
        possible &= (l2 <= _more(l1)) & (l1 <= _more(size * linf))
    if not possible.all():
        raise ValueError("distances that no image can have")
    if "loss" in rows.dtype.names and rows["loss"].min(initial=0.0) < -1e-3:
        raise ValueError("losses below 0")


def _more(distance):
    return distance * (1 + 1e-4) + 1e-6


def empty(count):
    """A table `[count]` of which nothing is known."""
    table = np.zeros(count, ROW)
    for name in ROW.names:
        if ROW[name].kind == "f":
            table[name] = np.nan
    return table
