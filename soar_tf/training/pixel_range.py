"""The check inside a train step's graph that pixels lie in [0, 1], and its message."""

import contextlib
import re

import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.training import replicas
from soar_tf.validation import pixels_outside

_OUTSIDE = "soar_tf: pixels outside [0, 1]:"


def checked(x):
    """`x`, after a check of its range inside the graph. XLA has no assertions: not under XLA."""
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    inside = (low >= 0.0) & (high <= 1.0)
    with tf.control_dependencies([tf.debugging.Assert(inside, [_OUTSIDE, low, high])]):
        return tf.identity(x)


@contextlib.contextmanager
def assertions_as_input_errors():
    """Turns the graph's failed range check into the message that arrays get."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if replicas.EMPTY in str(error):
            raise InputError(replicas.EMPTY) from None
        if label := re.search(r"label value of (\S+) which is outside .*?\[0, (\d+)\)", str(error)):
            raise InputError(
                f"`y` must hold labels from 0 to {int(label[2]) - 1}, the network's classes. "
                f"Received a label of {label[1]}."
            ) from None
        number = r"[^-\dni]*([-+.\dnaife]+)"
        found = re.search(re.escape(_OUTSIDE) + number + number, str(error))
        if _OUTSIDE not in str(error):
            raise
        low, high = found.groups() if found else ("?", "?")
        raise InputError(pixels_outside("x", low, high)) from None
