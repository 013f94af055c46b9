"""Files that are either whole or not there: written beside their place, synced, then renamed.

Files that anybody may have put there are read only if regular and small; no link is followed.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

from soar_tf.errors import InputError, RunError

# Names that begin so belong to files that were never finished.
UNFINISHED = ".writing-"

MAX_JSON_BYTES = 64 * 2**20

# Nothing waits: opening a pipe without `O_NONBLOCK` does until somebody writes to it.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link"),
)


def open_regular(path, name=None, max_bytes=None, *, follow=True):
    """Opens a file for reading, if it is a regular file: reading a pipe or a device may never end.

    Args:
        path: The file.
        name: What it is called in errors; `None` takes its path.
        max_bytes: Largest size in bytes, or `None` for any.
        follow: Whether `path` may be a link; stores of downloaded models keep files behind links.

    Returns:
        A binary file object.

    Raises:
        InputError: If it is a folder, a pipe, a device or a socket, or larger.
        OSError: If it cannot be opened.

    Example:

    >>> import tempfile
    >>> from soar_tf import files
    >>> files.open_regular(tempfile.gettempdir(), "`config` x")
    Traceback (most recent call last):
    soar_tf.errors.InputError: `config` x must be a regular file. Received: a folder.
    """
    name = str(path) if name is None else name
    # Looked at before it is opened, since opening some devices does something; and again after.
    _check_regular(os.stat(path, follow_symlinks=follow), name, max_bytes)
    descriptor = os.open(path, _READ if follow else _READ | os.O_NOFOLLOW)
    try:
        _check_regular(os.fstat(descriptor), name, max_bytes)
    except InputError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def read_bytes(path, name=None, max_bytes=MAX_JSON_BYTES, *, follow=True):
    """The content of a regular file; for the arguments and errors see `open_regular`."""
    with open_regular(path, name, max_bytes, follow=follow) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # it grows, or is one of the kernel's, whose sizes are 0
        raise InputError(f"{name or path} must have at most {max_bytes} bytes.")
    return content


def check_path(path, argument):
    """Refuses what cannot be the path of a file or folder, before hours of work, not after.

    Args:
        path: A path, as text or as a `pathlib.Path`.
        argument: The argument's name, for the error.

    Returns:
        The path as a `pathlib.Path`.

    Raises:
        InputError: If it is empty, is not UTF-8 (which TensorFlow cannot write), holds a NUL
            character, is too long for the file system, or leads in circles.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InputError(f"`{argument}` must be a path. Received: {text!r}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"`{argument}` must be a path in UTF-8. Received: {text!r}.") from None
    try:
        os.stat(text)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            shown = text if len(text) <= 80 else f"{text[:80]}..."
            raise InputError(f"`{argument}` {shown}: {error.strerror}.") from None
    return Path(path)


def open_lock(path):
    """Opens a lock file, creating it if it is missing; what is in it stays.

    Args:
        path: The file.

    Returns:
        A binary file object, for `fcntl.flock`.

    Raises:
        InputError: If it is anything but a regular file, a link to one included.
        OSError: If it cannot be opened.
    """
    with contextlib.suppress(FileNotFoundError):
        _check_regular(os.lstat(path), str(path))
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        _check_regular(os.fstat(descriptor), str(path))
    except InputError:
        os.close(descriptor)
        raise
    return open(descriptor, "r+b")


def make_subfolder(parent, name):
    """Creates a folder inside another one; a link of that name, which leads elsewhere, is refused.

    Args:
        parent: The outer folder; it is created if it does not exist.
        name: The inner folder's name.

    Returns:
        The inner folder's path.

    Raises:
        InputError: If it is a link.
        OSError: If it cannot be created.
    """
    folder = Path(parent) / name
    if folder.is_symlink():
        raise InputError(f"{folder} must be a folder. Received: a link.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_regular(status, name, max_bytes=None):
    if not stat.S_ISREG(status.st_mode):
        kind = next((word for test, word in _KINDS if test(status.st_mode)), "a device")
        raise InputError(f"{name} must be a regular file. Received: {kind}.")
    if max_bytes is not None and status.st_size > max_bytes:
        raise InputError(f"{name} must have at most {max_bytes} bytes. Received: {status.st_size}.")


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
    except OSError as error:
        # A full disk is reported without a name, and nobody knows the temporary one.
        if error.errno and error.filename in (None, str(temporary), temporary):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def unfinished(path):
    """A name beside `path` to write it under: a new one each time.

    It cannot be guessed, so nobody can have put a link there.
    """
    return Path(path).with_name(f"{UNFINISHED}{secrets.token_hex(8)}-{Path(path).name}")


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
        InputError: If it is no regular file, cannot be read or holds anything else.
    """
    try:
        content = read_bytes(path, max_bytes=max_bytes)
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
