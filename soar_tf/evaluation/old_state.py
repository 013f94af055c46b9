"""State files as version 0.1 wrote them, whole each time: a line with a checksum, then an NPZ."""

import hashlib
import io
import json

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import open_zip, read_array

MAGIC = b"soar-tf evaluation state 1 "
MAX_BYTES = 8 * 2**30
"""Largest size of such a file, in bytes; it is read into memory."""


def read(path):
    """Reads a file.

    Args:
        path: The file.

    Returns:
        A dictionary: `identity`, `seconds` and `sections`, dictionaries; `tables`, maps keys to
        structured arrays; `outputs`, an array or `None`; `kept`, maps positions to images.

    Raises:
        InputError: If it is damaged or is no such file.
        OSError: If it cannot be read.
        ValueError, KeyError, ...: If its content is of another form.
    """
    name = f"`state` {path}"
    data = files.read_bytes(path, name, MAX_BYTES)
    header, _, content = data.partition(b"\n")
    if not header.startswith(MAGIC):
        raise ValueError("another first line")
    if header[len(MAGIC) :].decode(errors="replace") != hashlib.sha256(content).hexdigest():
        raise InputError(f"{name} is damaged: its checksum is wrong; remove it to start anew.")
    setting = "soar_tf.evaluation.old_state.MAX_BYTES"
    with open_zip(io.BytesIO(content), name, max_bytes=MAX_BYTES, setting=setting) as archive:
        arrays = {
            member.removesuffix(".npy"): read_array(archive, member.removesuffix(".npy"), name)
            for member in archive.namelist()
        }
    about = json.loads(arrays["about"].tobytes())
    tables = {key: arrays[f"table{number}"] for number, key in enumerate(about["tables"])}
    kept = {}
    if "kept_rows" in arrays:
        kept = dict(zip(arrays["kept_rows"].tolist(), arrays["kept_images"], strict=True))
    return {
        **{key: about[key] for key in ("identity", "seconds", "sections")},
        "tables": tables,
        "outputs": arrays.get("outputs"),
        "kept": kept,
    }
