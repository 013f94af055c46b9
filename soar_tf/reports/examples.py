"""The table of an evaluation, one row per example, as NPZ and CSV; and its images."""

import csv
import dataclasses
import io
import math
import zipfile
from collections.abc import Callable

import numpy as np

from soar_tf import files

PART_BYTES = 16 * 2**20
"""Images that are written together take at most about so many bytes."""


@dataclasses.dataclass(frozen=True)
class Images:
    """Images that are written part by part, and never all in memory.

    Args:
        positions: int64 `[n]`.
        shape: Shape of one image.
        read: Callable that gives the images at some positions, float32 `[k, *shape]`.
    """

    positions: np.ndarray
    shape: tuple
    read: Callable

    def write(self, file):
        """Writes them as an array in NumPy's format, float32 `[n, *shape]`."""
        shape = (len(self.positions), *self.shape)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        step = max(1, PART_BYTES // (4 * math.prod(self.shape)))
        for start in range(0, len(self.positions), step):
            images = self.read(self.positions[start : start + step])
            file.write(np.ascontiguousarray(images, "<f4").data)


def write_npz(path, columns):
    """Writes the columns as arrays of a compressed NPZ file, atomically.

    Args:
        path: The file.
        columns: Maps names to arrays `[N, ...]` or `Images`.
    """
    with (
        files.replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(column, Images):
                    column.write(member)
                else:
                    np.lib.format.write_array(member, np.asarray(column), allow_pickle=False)


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
