"""Zip files (`.npz`, `.keras`): sizes and names are checked before anything is unpacked."""

import stat
import zipfile
from pathlib import PurePosixPath

from soar_tf.errors import InputError

MAX_MEMBERS = 10_000
MAX_RATIO = 100
"""Largest expansion; deflate reaches 1000, trained weights and pictures hardly 10."""

SMALL_BYTES = 64 * 2**20
"""What may expand by any ratio."""


def check_zip(path, name, *, max_bytes, setting):
    """Checks a zip file's directory; zipfile itself never unpacks more than the sizes in there.

    Args:
        path: The file.
        name: What it is called in errors.
        max_bytes: Largest sum of the members' sizes.
        setting: Where `max_bytes` can be changed, for the error.

    Returns:
        The members' names.

    Raises:
        InputError: For a bomb, or a member that would leave the folder it is unpacked to.
        OSError, zipfile.BadZipFile, ...: If it is no zip file.
    """
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise InputError(f"{name} must hold at most {MAX_MEMBERS} files. Received: {len(infos)}.")
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise InputError(
            f"{name} must hold at most {max_bytes} bytes uncompressed ({setting}). "
            f"Received: {total}."
        )
    packed = sum(info.compress_size for info in infos)
    if total > SMALL_BYTES and total > MAX_RATIO * packed:
        raise InputError(
            f"{name} must not expand more than {MAX_RATIO} times. "
            f"Received: {packed} bytes that become {total}."
        )
    for info in infos:
        _check_member(info, name)
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"{name} must hold each file once. Received: {twice!r} twice.")
    return names


def _check_member(info, name):
    parts = PurePosixPath(info.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in info.filename[:2]:
        raise InputError(
            f"{name} must hold files inside itself only. Received: {info.filename[:100]!r}."
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"{name} must hold no links. Received: {info.filename[:100]!r}.")
