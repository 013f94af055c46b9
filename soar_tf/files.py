"""Files that are either whole or not there: written beside their place, synced, then renamed."""

import contextlib
import json
import os
from pathlib import Path

# Names that begin so belong to files that were never finished.
UNFINISHED = ".writing-"


@contextlib.contextmanager
def replacing(path):
    """Context that gives a temporary path beside `path`, and renames it on success.

    A crash leaves either the old file or the new one, never a part of one.

    Args:
        path: The file's final place.

    Yields:
        The path to write to; it has the same suffixes as `path`.
    """
    path = Path(path)
    temporary = unfinished(path)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def unfinished(path):
    """The name beside `path` under which it is written."""
    return Path(path).with_name(f"{UNFINISHED}{os.getpid()}-{Path(path).name}")


def sync(path):
    """Flushes a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path, text):
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
