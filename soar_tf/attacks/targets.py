"""The target classes of targeted attacks."""

import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.errors import InputError, unknown
from soar_tf.ops import random
from soar_tf.validation import check_integer

NAMES = ("second", "least_likely", "next", "random", "all")


def check_target(target, names=NAMES):
    """Checks a target: `None`, one of the names, or a class (an integer, also as a string).

    Args:
        target: The target.
        names: The allowed names.

    Returns:
        `None`, the name, or the class as an int.

    Raises:
        InputError: For anything else.
    """
    if target is None or target in names:
        return target
    if isinstance(target, str) and not target.lstrip("-").isdigit():
        raise unknown("`target`", target, [*names, "a class number"])
    return check_integer(target, "target", minimum=0)


def choose(target, logits_fn, x, y, keys):
    """The target classes of each example's runs, none of them its label.

    Args:
        target: `"second"` (the most likely other class of the clean image), `"least_likely"`,
            `"next"` (label + 1, or 0 after the last class), `"random"` (uniform, by the noise key),
            `"all"` (one run per other class, most likely first) or a class; examples of that class
            get their second most likely one.
        logits_fn: Callable `[B, ...] -> [B, C]`.
        x: float32 tensor `[B, ...]`.
        y: int tensor `[B]`.
        keys: uint32 tensor `[B, 2]`.

    Returns:
        int tensor `[B, T]`, T = C - 1 for `"all"`, else 1.

    Raises:
        InputError: If `y` is not integer labels, or the class does not exist.
    """
    if y.shape.rank != 1 or not y.dtype.is_integer:
        raise InputError(f"A targeted attack needs integer labels [B]. Received: {y!r}.")
    logits = logits_fn(x)
    last_class = logits.shape[-1] - 1
    if target == "next":
        return ((y + 1) % (last_class + 1))[:, None]
    if isinstance(target, int) and target > last_class:
        raise InputError(
            f"`target` must be a class from 0 to {last_class} of the network. Received: {target}."
        )
    ranked = working_set.ranked_targets(y, logits, last_class)
    if target == "all":
        return ranked
    if target == "random":
        uniform = random.uniform(random.derive(keys, "target"), (1,))
        position = tf.cast(uniform * last_class, tf.int32)
        return tf.gather(ranked, tf.minimum(position, last_class - 1), axis=1, batch_dims=1)
    chosen = ranked[:, -1:] if target == "least_likely" else ranked[:, :1]
    if isinstance(target, int):
        chosen = tf.where(y[:, None] == target, chosen, tf.cast(target, y.dtype))
    return chosen
