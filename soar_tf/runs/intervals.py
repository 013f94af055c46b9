"""How often a run writes a checkpoint within an epoch: every so many steps, or minutes.

This module imports neither TensorFlow nor Keras, for the command line's sake.
"""

import dataclasses
import re

from soar_tf.errors import InputError

_TEXT = re.compile(r"0*(\d{1,9})(s|m|h|)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclasses.dataclass(frozen=True)
class Interval:
    """A time between checkpoints; exactly one of the two is not `None`.

    Attributes:
        steps: Number of training steps.
        seconds: Number of seconds.
    """

    steps: int | None = None
    seconds: int | None = None


def parse(value, argument="checkpoint_every"):
    """Reads an interval.

    Args:
        value: A number of steps, an int or text; or a time in whole seconds, minutes or hours,
            such as `"90s"`, `"10m"` or `"1h"`.
        argument: What the value is called in the error.

    Returns:
        An `Interval`.

    Raises:
        InputError: If it is neither, or 0.

    Example:

    >>> from soar_tf.runs import intervals
    >>> intervals.parse("10m").seconds, intervals.parse(500).steps
    (600, 500)
    """
    match = None if isinstance(value, bool) else _TEXT.fullmatch(str(value))
    if match is None or int(match[1]) == 0:
        raise InputError(
            f"`{argument}` must be a number of steps such as 500, or a time such as 90s, 10m or "
            f"1h, larger than 0. Received: {value!r}."
        )
    if match[2]:
        return Interval(seconds=int(match[1]) * _SECONDS[match[2]])
    return Interval(steps=int(match[1]))
