"""Reading a training run's configuration from a TOML file, which anybody may have written.

This module imports neither TensorFlow nor Keras, for the command line's sake.
"""

import dataclasses
import tomllib

from soar_tf import files
from soar_tf.errors import InputError, unknown
from soar_tf.runs.config import TrainConfig

MAX_TOML_BYTES = 2**20


def read_toml(path):
    """Reads a configuration file.

    Args:
        path: A TOML file whose keys are `TrainConfig`'s fields.

    Returns:
        A dictionary.

    Raises:
        InputError: If it is no regular file, cannot be read, is no TOML, or holds an unknown key
            or a wrong type.
    """
    try:
        content = files.read_bytes(path, f"`config` {path!s}", MAX_TOML_BYTES)
        values = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise InputError(f"`config` {path!s} cannot be read: {error.strerror}.") from None
    except InputError:
        raise
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"`config` {path!s} is not valid TOML: {error}.") from None
    except UnicodeDecodeError:
        raise InputError(f"`config` {path!s} is not valid TOML: it is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise InputError(
            f"`config` {path!s} is not valid TOML: it nests too deeply or holds an integer of "
            "thousands of digits."
        ) from None
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    for key, value in values.items():
        if key not in fields:
            raise unknown(f"key in {path!s}:", key, fields)
        _check_type(path, key, value, fields[key].type)
    return values


_TYPES = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    dict: "a table",
    list: "an array",
}


def _check_type(path, key, value, annotation):
    wanted = [kind for kind in _TYPES if kind in getattr(annotation, "__args__", (annotation,))]
    if float in wanted and isinstance(value, int) and not isinstance(value, bool):
        return
    if isinstance(value, bool) != (bool in wanted) or not isinstance(value, tuple(wanted)):
        raise InputError(
            f"`{key}` in {path!s} must be {' or '.join(_TYPES[k] for k in wanted)}. "
            f"Received: {value!r}."
        )
