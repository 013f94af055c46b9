"""The classes that a targeted attack aims at."""

import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.errors import InputError, unknown
from soar_tf.ops import random
from soar_tf.validation import check_integer

NAMES = ("second", "least_likely", "next", "random", "all")


def check_target(target, names=NAMES):
    """Checks a target: `None`, one of the names, or a class (an integer, also as a string).

    Args:
        target: The target as it came.
        names: The names that are allowed.

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
    """The classes at which each example's runs aim, none of them its own label.

    Args:
        target: `"second"` (the likeliest other class of the clean image), `"least_likely"`,
            `"next"` (label + 1, after the last class 0), `"random"` (uniform, by the noise key),
            `"all"` (one run per other class, likeliest first) or a class; examples of that class
            aim at their second likeliest.
        logits_fn: Callable `[B, ...] -> [B, C]`.
        x: float32 tensor `[B, ...]`.
        y: int tensor `[B]`.
        keys: uint32 tensor `[B, 2]`.

    Returns:
        int tensor `[B, T]`, T = C - 1 for `"all"`, else 1.

    Raises:
        InputError: If `y` does not hold integer labels, or the class does not exist.
    """
    if y.shape.rank != 1 or not y.dtype.is_integer:
        raise InputError(f"A targeted attack needs integer labels [B]. Received: {y!r}.")
    logits = logits_fn(x)
    others = logits.shape[-1] - 1
    if target == "next":
        return ((y + 1) % (others + 1))[:, None]
    if isinstance(target, int) and target > others:
        raise InputError(
            f"`target` must be a class from 0 to {others} of the network. Received: {target}."
        )
    ranked = working_set.ranked_targets(y, logits, others)
    if target == "all":
        return ranked
    if target == "random":
        uniform = random.uniform(random.derive(keys, "target"), (1,))
        position = tf.cast(uniform * others, tf.int32)
        return tf.gather(ranked, tf.minimum(position, others - 1), axis=1, batch_dims=1)
    chosen = ranked[:, -1:] if target == "least_likely" else ranked[:, :1]
    if isinstance(target, int):
        chosen = tf.where(y[:, None] == target, chosen, tf.cast(target, y.dtype))
    return chosen
