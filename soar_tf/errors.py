"""The one error that bad input raises.

A user's mistake is answered by one sentence that names the argument, what came and what is
allowed. The command line turns it into exit code 2; any other exception means that the run failed.
"""

import difflib
import re
from collections.abc import Iterable

from soar_tf import _lazy

# In version 0.1 the checks were here, and plugins import them.
_CHECKS = "check_boolean check_choice check_epsilon check_integer check_number check_pixels"
_MOVED = dict.fromkeys(
    [*_CHECKS.split(), "parse_number", "pixels_outside", "tensors_as_numbers"],
    "soar_tf.validation",
)


class InputError(ValueError):
    """Bad input, described in one sentence; a `ValueError`, so that callers can catch that.

    Example:

    >>> from soar_tf.errors import InputError
    >>> issubclass(InputError, ValueError)
    True
    """


class RunError(RuntimeError):
    """A run that started and failed, described in one sentence (exit code 1)."""


def unknown(kind: str, value: object, choices: Iterable[str]) -> InputError:
    """Builds the error for a name that is not registered, with the nearest match.

    Args:
        kind: What the name stands for, e.g. `"attack"`.
        value: The name that came.
        choices: The names that are allowed.

    Returns:
        The `InputError`, for the caller to raise.

    Example:

    >>> from soar_tf.errors import unknown
    >>> str(unknown("attack", "pgd200", ["fgsm", "pgd20"]))
    "Unknown attack 'pgd200'. Did you mean 'pgd20'? Allowed: fgsm, pgd20."
    """
    names = sorted(choices)
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return InputError(f"Unknown {kind} {value!r}.{hint} Allowed: {', '.join(names) or 'none'}.")


def __getattr__(name):
    return _lazy.load(__name__, _MOVED, name)


def plain(error: BaseException) -> str:
    """An error's text without the names of nodes and operations that TensorFlow adds to it."""
    text = re.sub(r"\{\{.*?\}\} ?", "", str(error).split(" [Op:")[0]).strip()
    return text or type(error).__name__
