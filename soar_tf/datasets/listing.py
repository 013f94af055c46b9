"""What is in a folder of images: one walk over it, and each file's header, read once.

Headers are checked in parallel and remembered in a cache folder under the file's size and time of
change, so that a folder of a million files is examined once and only walked through afterwards.
"""

import contextlib
import hashlib
import io
import os
import pathlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from soar_tf import files
from soar_tf.datasets import decoding
from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import open_zip, read_array

CACHED = 1000
"""Folders of fewer images are examined each time; nothing is cached for them."""

MAX_CACHE_BYTES = 2**31
HEAD_BYTES = 4096
"""So many first bytes of each file are part of a folder's fingerprint."""

_TAIL_BYTES, _CHUNK, _THREADS, _PAUSE = 32, 64, 8, 10.0
_KEYS = ("size", "changed")

HEADER = np.dtype(
    [
        ("size", "i8"),
        ("changed", "i8"),
        ("head", "u8"),
        ("height", "i4"),
        ("width", "i4"),
        ("channels", "u1"),
        ("orientation", "u1"),
        ("flags", "u1"),
    ]
)
"""What is known of a file; `flags` are those of `soar_tf.datasets.decoding`."""


def cache_folder():
    """Where listings and indices are kept: `SOAR_TF_CACHE`, else `soar-tf` in the user's cache."""
    named = os.environ.get("SOAR_TF_CACHE")
    if named:
        return pathlib.Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~", ".cache").expanduser()
    return pathlib.Path(base) / "soar-tf"


def walk(root):
    """All regular files below a folder, by the parts of their paths in it.

    Links to folders are not followed, but for folders of splits and classes, the first two levels.

    Args:
        root: The folder.

    Returns:
        `(paths, status)`: the paths relative to `root`, with `/`, sorted by their parts; int64
        `[N, 2]`, size in bytes and time of change in ns.
    """
    found = []

    def enter(folder, prefix, depth):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=depth < 2):
                    enter(entry.path, (*prefix, entry.name), depth + 1)
                elif entry.is_file():
                    status = entry.stat()
                    found.append(((*prefix, entry.name), status.st_size, status.st_mtime_ns))

    enter(root, (), 0)
    found.sort()
    status = np.array([row[1:] for row in found], np.int64).reshape(-1, 2)
    return ["/".join(row[0]) for row in found], status


def examine(root, paths, status):
    """Reads the headers of image files, but for those that the cache knows.

    Args:
        root: The folder.
        paths: The files' paths in it, sorted.
        status: int64 `[N, 2]`, see `walk`.

    Returns:
        `(headers, errors)`: an array `[N]` of `HEADER`, and `{path: InputError}` of those that
        cannot be read.
    """
    cache = _cache_file(root) if len(paths) >= CACHED else None
    known = _cached(cache) if cache else {}
    headers, errors, missing = np.zeros(len(paths), HEADER), {}, []
    headers["size"], headers["changed"] = status[:, 0], status[:, 1]
    for row, path in enumerate(paths):
        header = known.get(path)
        if header is not None and all(header[key] == headers[key][row] for key in _KEYS):
            headers[row] = header
        else:
            missing.append(row)
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    told = _Told(len(missing))

    def check(rows):
        return [(row, *_header(pathlib.Path(root, paths[row]))) for row in rows]

    with ThreadPoolExecutor(_THREADS) as pool:
        for chunk in pool.map(check, chunks):
            for row, values, error in chunk:
                if error is not None:
                    errors[paths[row]] = error
                else:
                    headers[row] = (*headers[row].item()[:2], *values)
            told.more(len(chunk))
    if cache and missing and not errors:
        _write_cache(cache, paths, headers)
    return headers, errors


def _header(file):
    """`(head, height, width, channels, orientation, flags)` and `None`; or `None` and an error."""
    try:
        with files.open_regular(file, max_bytes=decoding.MAX_IMAGE_BYTES) as stream:
            head = stream.read(HEAD_BYTES)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            tail = stream.read()
            stream.seek(0)
            seen = decoding.look(stream, head)
            if seen is None or not decoding.ends_well(seen.kind, tail, size, head):
                stream.seek(0)
                seen = decoding.look_closely(file, stream.read(), seen)
    except InputError as error:
        return None, error
    except OSError as error:
        return None, decoding.unreadable(file, error.strerror or type(error).__name__)
    digest = int.from_bytes(hashlib.blake2b(head, digest_size=8).digest(), "little")
    return (digest, *seen.size, seen.channels, seen.orientation, seen.flags), None


def _cache_file(root):
    key = hashlib.sha256(str(pathlib.Path(root).resolve()).encode()).hexdigest()[:32]
    return cache_folder() / f"folder-{key}.npz"


def _cached(path):
    """What a cache file says, `{path: header}`; `{}` if it cannot be used."""
    with contextlib.suppress(Exception):  # whatever is wrong with a cache, files can be read anew
        with open_zip(path, str(path), max_bytes=MAX_CACHE_BYTES, setting="") as archive:
            headers = read_array(archive, "headers", str(path))
            names = os.fsdecode(read_array(archive, "names", str(path)).tobytes()).split("\0")
        if headers.dtype == HEADER and len(names) == len(headers):
            return dict(zip(names, headers, strict=True))
    return {}


def _write_cache(path, names, headers):
    with contextlib.suppress(OSError):  # a cache that cannot be written costs only time
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        joined = np.frombuffer(os.fsencode("\0".join(names)), np.uint8)
        np.savez(buffer, headers=headers, names=joined)
        with files.replacing(path) as temporary:
            temporary.write_bytes(buffer.getvalue())


class _Told:
    """Says on stderr how far the check is, if it takes long."""

    def __init__(self, total):
        self.total, self.done, self.said = total, 0, time.monotonic()

    def more(self, count):
        self.done += count
        if time.monotonic() - self.said >= _PAUSE:
            self.said = time.monotonic()
            print(f"Checking images: {self.done} of {self.total} files.", file=sys.stderr)
