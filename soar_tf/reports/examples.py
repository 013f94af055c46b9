"""The table of an evaluation with a row an example, as NPZ and CSV."""

import csv
import io

import numpy as np

from soar_tf import files


def write_npz(path, columns):
    """Writes the columns as arrays of an NPZ file, atomically.

    Args:
        path: The file.
        columns: Maps names to arrays `[N, ...]`.
    """
    with files.replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **columns)


def write_csv(path, columns):
    """Writes the columns as CSV, atomically; what is unknown (NaN, class -1) stays empty.

    Args:
        path: The file.
        columns: Maps names to arrays `[N]`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        zip(*([_cell(value) for value in values] for values in columns.values()), strict=True)
    )
    files.write_text(path, text.getvalue())


def _cell(value):
    if isinstance(value, np.bool_):
        return int(value)
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else f"{value:.6g}"
    return "" if isinstance(value, np.integer) and value < 0 else value
