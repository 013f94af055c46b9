"""Arrays of PyTorch checkpoints and of safetensors files, without running anything in them.

A checkpoint of PyTorch is a zip file with a pickle, which is a program: loading it with `pickle`
runs what its author wrote. Here its instructions are read one by one, and only those that build
dictionaries, lists and tensors do something. Objects of any class become placeholders: no class is
looked up, no function is called.
"""

import json
import pickletools  # nosec B403: it takes pickles apart and runs nothing

import numpy as np

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import open_zip
from soar_tf.models.untrusted.pickle_reader import Reader

MAX_BYTES = 8 * 2**30
_MAX_PICKLE_BYTES = 64 * 2**20
_MAX_HEADER_BYTES = 16 * 2**20
_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bf16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_DAMAGED = (ValueError, TypeError, IndexError, KeyError, AttributeError, EOFError, OverflowError)


def read(path, name):
    """The arrays of a checkpoint.

    Args:
        path: A `pathlib.Path`: a file of `torch.save`, PyTorch 1.6 or later, or `.safetensors`.
        name: What it is called in errors.

    Returns:
        Mapping of names to arrays: those of the dictionary that holds the most tensors, since
        checkpoints of training hold optimizers and more.

    Raises:
        InputError: If it is no such file, damaged, or too large.
        OSError: If it cannot be read.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path, name)
    setting = "soar_tf.models.untrusted.torch_files.MAX_BYTES"
    try:
        with open_zip(path, name, max_bytes=MAX_BYTES, setting=setting) as archive:
            return _largest(_unpickled(archive, name))
    except (InputError, FileNotFoundError, PermissionError):
        raise
    except Exception:  # zipfile, zlib and struct raise classes of many kinds
        raise InputError(
            f"{name} cannot be read as a PyTorch checkpoint: it is damaged, or from before PyTorch "
            "1.6; save its state_dict again, with torch.save or as safetensors."
        ) from None


def _unpickled(archive, name):
    members = {info.filename: info for info in archive.infolist()}
    (pickled,) = (member for member in members if member.endswith("/data.pkl"))
    if members[pickled].file_size > _MAX_PICKLE_BYTES:
        raise InputError(f"{name}: {pickled} must have at most {_MAX_PICKLE_BYTES} bytes.")
    root = pickled.removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in members and archive.read(order) != b"little":
        raise InputError(f"{name} must be little-endian.")

    read = {}  # many tensors may share a storage

    def storage(identifier):
        _, kind, key, *_ = identifier
        form = _TYPES[kind.name.rpartition(".")[2]]
        if (key, form) not in read:
            read[key, form] = _array(archive.read(f"{root}data/{key}"), form)
        return read[key, form]

    reader = Reader(storage, _tensor)
    return reader.read(pickletools.genops(archive.read(pickled)))


def _array(content, form):
    if form == "bf16":  # the upper half of a float32
        return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(content, form)


def _tensor(storage, offset, size, stride, *_):
    """A tensor out of its storage, after a check that it stays inside and repeats nothing."""
    if len(size) != len(stride) or min((*size, *stride, offset, 0)) < 0:
        raise ValueError
    count = int(np.prod(size, dtype=object)) if size else 1
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= len(storage) or count > len(storage)):
        raise ValueError
    if not count:
        return np.zeros(size, storage.dtype)
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def _largest(value, depth=3):
    """The dictionary with the most arrays in it."""
    if not isinstance(value, dict):
        raise TypeError
    candidates = [{k: v for k, v in value.items() if isinstance(v, np.ndarray)}]
    for inner in value.values():
        if isinstance(inner, dict) and depth:
            candidates.append(_largest(inner, depth - 1))
    found = max(candidates, key=len)
    if any(not isinstance(key, str) for key in found):
        raise TypeError
    return found


def _read_safetensors(path, name):
    content = files.read_bytes(path, name, MAX_BYTES)
    try:
        length = int.from_bytes(content[:8], "little")
        if length > min(_MAX_HEADER_BYTES, len(content) - 8):
            raise ValueError
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        data = content[8 + length :]
        return {key: _safetensor(data, entry) for key, entry in header.items()}
    except (*_DAMAGED, RecursionError):
        raise InputError(f"{name} cannot be read as safetensors: it is damaged.") from None


def _safetensor(data, entry):
    start, stop = entry["data_offsets"]
    if not 0 <= start <= stop <= len(data):
        raise ValueError
    return _array(data[start:stop], _SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
