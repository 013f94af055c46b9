"""Zip files (`.npz`, `.keras`): sizes and names are checked before anything is unpacked."""

import contextlib
import math
import stat
import zipfile
from pathlib import PurePosixPath

import numpy as np

from soar_tf import files
from soar_tf.errors import InputError

MAX_MEMBERS = 10_000
MAX_RATIO = 100
"""Largest expansion; deflate reaches 1000, trained weights and pictures hardly 10."""

SMALL_BYTES = 64 * 2**20
"""What may expand by any ratio."""


@contextlib.contextmanager
def open_zip(source, name, *, max_bytes, setting):
    """Context that gives a zip file whose directory has been checked.

    zipfile itself never unpacks more than the sizes in there.

    Args:
        source: The file's path, or an open binary file.
        name: What it is called in errors.
        max_bytes: Largest sum of the members' sizes.
        setting: Where `max_bytes` can be changed, for the error.

    Yields:
        A `zipfile.ZipFile`.

    Raises:
        InputError: For a bomb, a member that would leave the folder it is unpacked to, or a path
            that is no regular file.
        OSError, zipfile.BadZipFile, ...: If it is no zip file.
    """
    with contextlib.ExitStack() as stack:
        if not hasattr(source, "read"):
            source = stack.enter_context(files.open_regular(source, name))
        archive = stack.enter_context(zipfile.ZipFile(source))
        infos = archive.infolist()
        _check_sizes(infos, name, max_bytes, setting)
        for info in infos:
            _check_member(info, name)
        names = [info.filename for info in infos]
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError(f"{name} must hold each file once. Received: {twice!r} twice.")
        yield archive


def read_array(archive, array, name, rows=None):
    """One array of a checked `.npz` file; its header is compared with the size it is stored in.

    Args:
        archive: What `open_zip` gives.
        array: The array's name.
        name: What the file is called in errors.
        rows: Only so many of the first rows; `None`: all.

    Returns:
        A NumPy array of anything but objects.

    Raises:
        InputError: If it holds objects, or its header promises another size.
        KeyError, ValueError, ...: If there is no such array, or it is none.
    """
    shape, fortran, dtype, header = array_header(archive, array, name)
    with archive.open(f"{array}.npy") as file:
        if rows is None or fortran or not shape:
            array = np.lib.format.read_array(file, allow_pickle=False)
            return array if rows is None else array[:rows]
        file.seek(header)
        shape = (min(rows, shape[0]), *shape[1:])
        content = file.read(dtype.itemsize * math.prod(shape))
        return np.frombuffer(content, dtype).reshape(shape)


def array_header(archive, array, name):
    """Shape, whether columns come first, type, and the header's bytes; see `read_array`.

    Raises:
        InputError: If it holds objects, or its header promises another size.
        KeyError, ValueError, ...: If there is no such array, or it is none.
    """
    member = f"{array}.npy"
    with archive.open(member) as file:
        shape, fortran, dtype = npy_header(file)
        header = file.tell()
    if dtype.hasobject:
        raise InputError(
            f"`{array}` of {name} must hold numbers. Received: objects, which only unsafe pickles "
            "can hold."
        )
    declared, stored = dtype.itemsize, archive.getinfo(member).file_size - header
    for side in shape:
        declared *= int(side)
    if min(shape, default=0) < 0:
        raise InputError(f"`{array}` of {name} must have a shape. Received: {shape}.")
    if declared != stored:
        raise InputError(
            f"`{array}` of {name} must be as long as its header says ({declared} bytes). "
            f"Received: {stored} bytes."
        )
    return shape, fortran, dtype, header


def npy_header(file):
    """Shape, whether columns come first, and type of an array in an open `.npy` file."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    return read(file)


def _check_sizes(infos, name, max_bytes, setting):
    if len(infos) > MAX_MEMBERS:
        raise InputError(f"{name} must hold at most {MAX_MEMBERS} files. Received: {len(infos)}.")
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise InputError(
            f"{name} must hold at most {max_bytes} bytes uncompressed ({setting}). "
            f"Received: {total}."
        )
    packed = sum(info.compress_size for info in infos)
    if is_bomb(total, packed):
        raise InputError(
            f"{name} must not expand more than {MAX_RATIO} times. "
            f"Received: {packed} bytes that become {total}."
        )


def is_bomb(unpacked, stored):
    """Whether so many stored bytes are too few for what they become."""
    return unpacked > SMALL_BYTES and unpacked > MAX_RATIO * stored


def _check_member(info, name):
    parts = PurePosixPath(info.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in info.filename[:2]:
        raise InputError(
            f"{name} must hold files inside itself only. Received: {info.filename[:100]!r}."
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"{name} must hold no links. Received: {info.filename[:100]!r}.")
