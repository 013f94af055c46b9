"""`npz:FILE`: arrays `x_train`, `y_train`, `x_test`, `y_test`, as Keras's own data sets have.

In one `.npz` file, or as `.npy` files `x_train.npy` and so on in a folder. Images that take more
than the memory limit are mapped, not read, where they lie uncompressed in the file; what identifies
them is then their checksum in the zip file, or of a `.npy` file its size and 64 of its blocks of
4,096 bytes.

The file may come from anywhere, so nothing in it is trusted: declared sizes are checked before any
array is read, and pickles are never loaded.
"""

import contextlib
import hashlib
import io
import math
import pathlib
import struct
import zipfile

import numpy as np

from soar_tf import files
from soar_tf.datasets.dataset import SPLITS, Dataset, needed
from soar_tf.datasets.images import MEMORY_BYTES, Mapped
from soar_tf.datasets.source import Source
from soar_tf.datasets.split import Split
from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import npy_header, open_zip, read_array

MAX_BYTES = 8 * 2**30
"""Largest uncompressed size of a file, in bytes; a zip of a few kB can declare terabytes."""

_BLOCK, _BLOCKS = 4096, 64

# Of a whole set's pixels in 0-255 some are brighter; of 0/1, 0-16 or 5 bits none is. Floats that
# were divided by 255 twice are below the second.
_BRIGHTEST, _BRIGHTEST_FLOAT = 32, 2 / 255

MAX_CLASSES = 65536
"""Labels beyond this are ids or time stamps, not classes."""


def load(path, wanted, limit=MEMORY_BYTES):
    """Reads the wanted splits of a file, or of a folder of `.npy` files.

    Args:
        path: The file or folder. It holds `x_<split>` and `y_<split>` for one or more of train,
            validation and test. Images: `[N, H, W]` or `[N, H, W, C]`, uint8 0-255 or float in
            [0, 1]. Labels: integers, `[N]` or `[N, 1]`.
        wanted: Names of the splits.
        limit: Bytes of a split's images beyond which they are mapped where that can be done.

    Returns:
        `(dataset, available)`: the `Dataset` and the names of all splits in the file.

    Raises:
        InputError: If the file is not such a file.
    """
    if pathlib.Path(path).is_dir() and any(pathlib.Path(path).glob("[xy]_*.npy")):
        return _load(path, Folder(path), wanted, limit)
    with _opened(path) as archive:
        return _load(path, archive, wanted, limit)


def _load(path, archive, wanted, limit):
    members = archive.namelist()
    for split in SPLITS:
        images, labels = f"x_{split}", f"y_{split}"
        if (f"{images}.npy" in members) != (f"{labels}.npy" in members):
            raise InputError(
                f"`npz:{path}` must hold both `{images}` and `{labels}`, or neither. "
                "Received: only one of them."
            )
    available = tuple(split for split in SPLITS if f"x_{split}.npy" in members)
    if not available:
        raise InputError(
            f"`npz:{path}` must hold arrays x_train and y_train, or x_test and y_test. "
            f"Received: {', '.join(m.removesuffix('.npy') for m in members) or 'no arrays'}."
        )
    # Labels of every split are read (they are small): the number of classes must not depend on
    # which splits were asked for.
    labels = {name: _labels(path, name, _array(path, archive, f"y_{name}")) for name in available}
    splits = {}
    for name in needed(wanted, available):
        images = _mapped(path, archive, f"x_{name}", limit)
        if images is None:
            images = _images(path, name, _array(path, archive, f"x_{name}"))
        if len(images) != len(labels[name]):
            raise InputError(
                f"`x_{name}` and `y_{name}` of {path} must have the same length. "
                f"Received: {len(images)} images and {len(labels[name])} labels."
            )
        splits[name] = Split(images, labels[name])
    shape = next(iter(splits.values())).image_shape if splits else (0, 0, 0)
    classes = max(2, 1 + max(int(array.max()) for array in labels.values()))
    dataset = Dataset(f"npz:{path}", classes, shape, splits, None, False, f"File {path}.")
    return dataset, available


def _unreadable(path, error):
    """The error for a damaged or foreign file, which zipfile and numpy answer in a dozen types."""
    return InputError(
        f"`npz:{path}` must be a readable .npz file (numpy.savez) of plain arrays. "
        f"Received: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    )


@contextlib.contextmanager
def _opened(path):
    """Context that gives the archive, after every member's declared size has been checked."""
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(
                open_zip(
                    path,
                    f"`npz:{path}`",
                    max_bytes=MAX_BYTES,
                    setting="soar_tf.datasets.npz.MAX_BYTES",
                )
            )
        except FileNotFoundError as error:
            raise InputError(f"`npz:{path}` must name a file. Received: no such file.") from error
        except InputError:
            raise
        except Exception as error:
            raise _unreadable(path, error) from error
        yield archive


def _array(path, archive, name):
    """Reads one array after its header was checked against the size that the zip declares."""
    try:
        array = read_array(archive, name, path)
    except InputError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    if array.dtype.kind not in "uifb":
        raise InputError(f"`{name}` of {path} must hold numbers. Received: {array.dtype}.")
    return array


class Folder:
    """A folder of `.npy` files, with as much of `zipfile.ZipFile` as is needed here.

    Args:
        path: The folder.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def namelist(self):
        """The names of the `.npy` files."""
        return sorted(file.name for file in self.path.glob("*.npy"))

    def open(self, name):
        """A file, for reading."""
        return files.open_regular(self.path / name)

    def getinfo(self, name):
        """A file's name and size."""
        info = zipfile.ZipInfo(name)
        info.file_size = (self.path / name).stat().st_size
        return info


def _mapped(path, archive, name, limit):
    """`Mapped` images, or `None` where they are few, packed, or of a type that is converted."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size <= limit or info.compress_type != zipfile.ZIP_STORED:
        return None
    try:
        with archive.open(info.filename) as member:
            shape, fortran, dtype = npy_header(member)
            header = member.tell()
        stored = info.file_size - header
        if fortran or dtype not in (np.uint8, np.float32) or len(shape) not in (3, 4):
            return None
        if 0 in shape or math.prod(shape) * dtype.itemsize != stored:
            return None  # whoever reads the array says so
        if isinstance(archive, Folder):
            file, start = archive.path / info.filename, header
            identity = _blocks(file)
        else:
            file, start = pathlib.Path(path), _start(path, info) + header
            identity = f"{info.file_size} crc32 {info.CRC}"
        array = np.memmap(file, dtype, "r", start, shape)
        some = np.unique(np.linspace(0, len(array) - 1, _BLOCKS).astype(np.int64))
        _check_brightness(f"`{name}` of {path}", array[some])
    except InputError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    return Mapped(array, f"`{name}` of {path}", f"{shape} {dtype.str} {identity}")


def _start(path, info):
    """Where a stored member's bytes begin in a zip file."""
    with files.open_regular(path) as file:
        file.seek(info.header_offset)
        header = file.read(30)
    if header[:4] != b"PK\3\4":
        raise ValueError("a member without its header")
    return info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))


def _blocks(path):
    """Size and a sha256 of evenly spread blocks of a file."""
    digest = hashlib.sha256()
    with files.open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        for place in np.linspace(0, max(0, size - _BLOCK), _BLOCKS).astype(np.int64).tolist():
            file.seek(place)
            digest.update(file.read(_BLOCK))
    return f"{size} {digest.hexdigest()}"


def _images(path, split, images):
    """Checks pixels; returns uint8 or float32 `[N, H, W, C]`."""
    argument = f"`x_{split}` of {path}"
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(
            f"{argument} must have shape [N, H, W] or [N, H, W, C], none of them 0. "
            f"Received: shape {images.shape}."
        )
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype == np.uint8:
        _check_brightness(argument, images)
        return images
    if images.dtype.kind != "f":
        raise InputError(
            f"{argument} must be uint8 (0-255) or float (0-1). Received: dtype {images.dtype}."
        )
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{argument} must be finite. Received: NaN or infinite pixels.")
    if low < 0 or high > 1:
        hint = " Divide by 255, or store uint8." if low >= 0 and 1 < high <= 255 else ""
        raise InputError(
            f"{argument} must have float pixels in [0, 1]. "
            f"Received: minimum {low:g}, maximum {high:g}.{hint}"
        )
    _check_brightness(argument, images)
    return images.astype(np.float32)


def _check_brightness(argument, images):
    """Refuses images that are almost black as they are read: their scale is another one."""
    largest = images.max()
    if images.dtype == np.uint8 and 0 < largest <= _BRIGHTEST:
        raise InputError(
            f"{argument} must hold pixels from 0 to 255. Received: none above {largest}, which "
            f"would be almost black; divide by {largest} and store float32."
        )
    if images.dtype != np.uint8 and 0 < largest <= _BRIGHTEST_FLOAT:
        raise InputError(
            f"{argument} must hold pixels from 0 to 1. Received: none above {largest:.3g}, as if "
            "they had been divided by 255 twice."
        )


def _labels(path, split, labels):
    """Checks labels; returns int64 `[N]`."""
    argument = f"`y_{split}` of {path}"
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise InputError(
            f"{argument} must hold one class number per image, shape [N] or [N, 1]. Received: shape"
            f" {labels.shape} (one-hot labels? Take numpy.argmax(y, axis=1))."
        )
    if labels.ndim not in (1, 2) or labels.size == 0:
        raise InputError(
            f"{argument} must have shape [N] or [N, 1], N > 0. Received: shape {labels.shape}."
        )
    if labels.dtype.kind not in "iu":
        raise InputError(f"{argument} must be integers. Received: dtype {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        bad = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(f"{argument} must lie in 0..{MAX_CLASSES - 1}. Received: {bad}.")
    return labels.reshape(-1).astype(np.int64)


NPZ = Source(
    "arrays x_train, y_train, x_test, y_test; uint8 0-255 or float 0-1; a file, or a folder of "
    ".npy files",
    lambda request: load(request.place, request.splits, request.memory_limit),
)
