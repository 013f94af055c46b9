"""Images in NPZ files that reports left, one at a time."""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import array_header, open_zip

MAX_BYTES = 2**42
"""Largest sum of the sizes of the arrays in such a file; images stay there."""

_SETTING = "soar_tf.reports.stored.MAX_BYTES"


class StoredImages(Mapping):
    """Maps positions of examples to their images in an NPZ file, which are read when asked for.

    The file is unpacked from the image read before on, so that whoever asks in the order of the
    positions goes through it once.

    Args:
        path: The file.
        array: The array's name, float32 `[n, H, W, C]`.
        positions: int `[n]`, the position of each.

    Raises:
        InputError: If the array is no such one.
        KeyError, ValueError, ...: If there is none.
    """

    def __init__(self, path, array, positions):
        self._name, self._stack = f"`report` {path}", contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            archive = stack.enter_context(
                open_zip(path, self._name, max_bytes=MAX_BYTES, setting=_SETTING)
            )
            shape, fortran, self._dtype, self._start = array_header(archive, array, self._name)
            if fortran or self._dtype != np.float32 or shape[:1] != (len(positions),):
                raise ValueError("images of another form")
            self._stream = stack.enter_context(archive.open(f"{array}.npy"))
            self._stack = stack.pop_all()
        self.shape = shape[1:]
        self._rows = {int(position): row for row, position in enumerate(positions)}

    def __getitem__(self, position):
        size = self._dtype.itemsize * math.prod(self.shape)
        row = self._rows[position]
        try:
            self._stream.seek(self._start + row * size)
            content = self._stream.read(size)
            return np.frombuffer(content, self._dtype).reshape(self.shape)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = str(error).strip() or type(error).__name__
            raise InputError(f"{self._name} must be readable. Received: {reason}.") from error

    def __iter__(self):
        return iter(self._rows)

    def __len__(self):
        return len(self._rows)

    def close(self):
        """Closes the file."""
        self._stack.close()
