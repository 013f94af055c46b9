"""LiteRT files: bounded, well-formed as far as operations go, and none that is not LiteRT's own.

A `.tflite` file is a FlatBuffer. Its list of operations is read here, by offsets that are checked,
before the runtime sees the file: a custom operation is code of somebody's library, and a variable,
a table or a random number would make the logits depend on more than the image.
"""

import struct

from soar_tf import files
from soar_tf.errors import InputError

MAX_BYTES = 2 * 2**30 - 1  # FlatBuffers end there
_MAGIC = b"TFL3"
_MAX_OPERATIONS = 10_000
_CUSTOM = 32
_REFUSED = {
    _CUSTOM: "a custom operation",
    51: "DELEGATE",
    129: "CALL_ONCE",
    **dict.fromkeys((136, 137, 138, 139), "a hash table"),
    **dict.fromkeys((142, 143, 144), "a variable"),
    **dict.fromkeys((146, 148, 149, 204), "a random number"),
    173: "STABLEHLO_CUSTOM_CALL",
}
# Fields of the schema's tables `Model` and `OperatorCode`.
_OPERATOR_CODES, _SUBGRAPHS = 1, 2
_OLD_CODE, _CUSTOM_CODE, _CODE = 0, 1, 3


def read(path, name):
    """The content of a LiteRT file, checked.

    Args:
        path: The file.
        name: What it is called in errors.

    Returns:
        bytes.

    Raises:
        InputError: If it is no regular file, too large, damaged, or holds an operation that does
            more than compute.
        OSError: If it cannot be read.
    """
    content = files.read_bytes(path, name, MAX_BYTES)
    try:
        operations = _operations(content)
    except (struct.error, IndexError):
        raise InputError(f"{name} is not a LiteRT file, or it is damaged.") from None
    for code, custom in operations:
        if code in _REFUSED or custom:
            what = f"the custom operation {custom!r}" if custom else _REFUSED[code]
            raise InputError(f"{name} must only compute. Received: a file with {what}.")
    return content


def _operations(content):
    """`(builtin code, custom code)` of each entry of the file's list of operations."""
    if content[4:8] != _MAGIC:
        raise IndexError
    model = _table(content, _number(content, "<I", 0))
    if _SUBGRAPHS not in model:
        raise IndexError
    found = []
    for position in _vector(content, model.get(_OPERATOR_CODES)):
        fields = _table(content, position + _number(content, "<I", position))
        # Codes above 127 are in the newer field; the older one then holds 127.
        old = _number(content, "<b", fields[_OLD_CODE]) if _OLD_CODE in fields else 0
        new = _number(content, "<i", fields[_CODE]) if _CODE in fields else 0
        custom = _string(content, fields[_CUSTOM_CODE]) if _CUSTOM_CODE in fields else ""
        found.append((max(old, new), custom))
    return found


def _number(content, form, position):
    if not 0 <= position <= len(content) - struct.calcsize(form):
        raise IndexError(position)
    return struct.unpack_from(form, content, position)[0]


def _table(content, position):
    """Maps the numbers of the fields that a table has to their positions."""
    entries = position - _number(content, "<i", position)
    size = _number(content, "<H", entries)
    offsets = {i: _number(content, "<H", entries + 4 + 2 * i) for i in range((size - 4) // 2)}
    return {i: position + offset for i, offset in offsets.items() if offset}


def _vector(content, field):
    """The positions of a vector's elements of 4 bytes."""
    if field is None:
        return []
    start = field + _number(content, "<I", field)
    count = _number(content, "<I", start)
    if count > _MAX_OPERATIONS:
        raise IndexError(count)
    return [start + 4 + 4 * i for i in range(count)]


def _string(content, field):
    start = field + _number(content, "<I", field)
    length = _number(content, "<I", start)
    if start + 4 + length > len(content):
        raise IndexError(length)
    return content[start + 4 : start + 4 + min(length, 100)].decode("utf-8", "replace")
