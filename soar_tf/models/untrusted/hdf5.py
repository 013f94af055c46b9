"""HDF5 weights: links that leave the file, and arrays far larger than what is stored of them.

HDF5 can keep an array's values in other files, link to objects of other files, and declare an array
of terabytes of which nothing is stored: it then reads as zeros.
"""

import math

import h5py

from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import MAX_RATIO, is_bomb

MAX_BYTES = 16 * 2**30
MAX_OBJECTS = 100_000


def count_elements(source, name):
    """Checks a weights file; nothing of its arrays is read.

    Args:
        source: The file's path, or an open binary file.
        name: What it is called in errors.

    Returns:
        The number of elements of all its arrays.

    Raises:
        InputError: If it refers to anything outside itself, holds anything but numbers, or would
            expand like a zip bomb.
        OSError, ...: If it is no HDF5 file.
    """
    elements = unpacked = stored = 0
    with h5py.File(source, "r") as file:
        for path, array in _arrays(file, name):
            _check_array(path, array, name)
            elements += array.size
            # A network's own weights have 4 bytes, however few are stored of each.
            width = max(array.dtype.itemsize, 4)
            unpacked += width * max(array.size, math.prod(array.chunks or ()))
            stored += array.id.get_storage_size()
    if unpacked > MAX_BYTES:
        raise InputError(
            f"{name} must hold at most {MAX_BYTES} bytes of weights "
            f"(soar_tf.models.untrusted.hdf5.MAX_BYTES). Received: {unpacked}."
        )
    if is_bomb(unpacked, stored):
        raise InputError(
            f"{name} must not hold weights that expand more than {MAX_RATIO} times. "
            f"Received: {stored} bytes that become {unpacked}."
        )
    return elements


def _arrays(file, name):
    """`(path, h5py.Dataset)` of every array, each once however many names it has."""
    waiting, seen = [("", file)], set()
    while waiting:
        parent, group = waiting.pop()
        for key in group:
            path = f"{parent}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise InputError(f"{name} must hold no links. Received: {path[:100]!r}.")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MAX_OBJECTS:
                raise InputError(f"{name} must hold at most {MAX_OBJECTS} arrays and groups.")
            if isinstance(item, h5py.Group):
                waiting.append((path, item))
            elif isinstance(item, h5py.Dataset):
                yield path, item


def _check_array(path, array, name):
    if array.external is not None or array.is_virtual:
        raise InputError(
            f"{name} must hold its weights inside itself. Received: {path[:100]!r}, whose values "
            "are in another file."
        )
    # bfloat16 and float8 are opaque bytes (V) to HDF5.
    if array.dtype.hasobject or array.dtype.names is not None or array.dtype.kind not in "biufcV":
        raise InputError(
            f"{name} must hold numbers. Received: {path[:100]!r} of type {array.dtype}."
        )
