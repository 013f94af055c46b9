"""Files that are either whole or not there: written beside their place, synced, then renamed."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

from soar_tf.errors import InputError, RunError

# Names that begin so belong to files that were never finished.
UNFINISHED = ".writing-"

MAX_JSON_BYTES = 64 * 2**20


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


def sync_tree(folder):
    """Flushes a folder and all that is in it to the disk."""
    for path in sorted(Path(folder).rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def remove(path):
    """Removes a file, a link or a folder with all that is in it; links are not followed."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_json(path, max_bytes=MAX_JSON_BYTES):
    """Reads a JSON file that anybody may have written.

    Args:
        path: The file.
        max_bytes: Largest size that is read.

    Returns:
        A dictionary, or `None` if there is no such file.

    Raises:
        InputError: If it cannot be read or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    return parse_json(content, path, max_bytes)


def parse_json(content, name, max_bytes=MAX_JSON_BYTES):
    """The dictionary in a JSON text (bytes or str); see `read_json`."""
    if not isinstance(content, (str, bytes)):
        raise InputError(f"{name} must be text. Received: {type(content).__name__}.")
    if len(content) > max_bytes:
        raise InputError(f"{name} must have at most {max_bytes} bytes.")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not valid JSON: {_first_line(error)}.") from None
    if not isinstance(value, dict):
        raise InputError(f"{name} must hold a JSON object. Received: {type(value).__name__}.")
    return value


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


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


@contextlib.contextmanager
def as_run_error(folder):
    """Turns a failure to write a run's results into one sentence.

    Args:
        folder: The run directory.

    Raises:
        RunError: With the operating system's reason, and how to go on.
    """
    try:
        yield
    except (RunError, NotImplementedError):
        raise
    except Exception as error:
        # h5py raises RuntimeError, TensorFlow's file system its own classes, `export` InputError.
        from_tensorflow = type(error).__module__.startswith("tensorflow.")
        if not from_tensorflow and not isinstance(error, (OSError, RuntimeError, InputError)):
            raise
        raise RunError(
            f"{folder} could not be written ({_reason(error)}); nothing that was complete is "
            "lost, and the same command goes on after the last checkpoint."
        ) from None


def _reason(error):
    """What the operating system said, out of the many ways in which libraries pass it on."""
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"errno = (\d+)", str(error))):
        number = int(found[1])
    return os.strerror(number) if number else _first_line(error)
