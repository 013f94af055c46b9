"""Training methods: one class a file, one registry line each."""

import keras

from soar_tf import serialization
from soar_tf.errors import InputError, unknown
from soar_tf.methods.adversarial import Adversarial
from soar_tf.methods.cure import CURE
from soar_tf.methods.fast import Fast
from soar_tf.methods.forward import Forward
from soar_tf.methods.gradient_norm import GradientNorm
from soar_tf.methods.jacobian import Jacobian
from soar_tf.methods.llr import LLR
from soar_tf.methods.mart import MART
from soar_tf.methods.method import Method, Terms
from soar_tf.methods.soar import SOAR
from soar_tf.methods.standard import Standard
from soar_tf.methods.sum import Sum
from soar_tf.methods.trades import TRADES

# The registry: a new method is one file and one line here.
ALL_OBJECTS = {
    "standard": Standard,
    "soar": SOAR,
    "adversarial": Adversarial,
    "fast": Fast,
    "trades": TRADES,
    "mart": MART,
    "cure": CURE,
    "llr": LLR,
    "gradient-norm": GradientNorm,
    "jacobian": Jacobian,
    "sum": Sum,
}
for _cls in ALL_OBJECTS.values():
    keras.saving.register_keras_serializable(package="soar_tf")(_cls)


def get(identifier, **arguments):
    """Builds a method.

    Args:
        identifier: A `Method` (returned as it is) or a registered name such as `"soar"`.
        **arguments: The method's hyper-parameters; strings are read as numbers where a number is
            meant, `"8/255"` included.

    Returns:
        The `Method`.

    Raises:
        InputError: For an unknown name or argument, or a value out of range.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.get("adversarial", steps=1).steps
    1
    """
    if isinstance(identifier, Method):
        return identifier
    if not isinstance(identifier, str):
        raise InputError(f"`method` must be a name or a Method. Received: {identifier!r}.")
    if identifier not in ALL_OBJECTS:
        raise unknown("method", identifier, ALL_OBJECTS)
    cls = ALL_OBJECTS[identifier]
    return serialization.construct("method", cls, identifier, arguments)


def serialize(method):
    """The method as a plain dictionary; see `deserialize`.

    Args:
        method: A `Method`.

    Example:

    >>> import soar_tf
    >>> config = soar_tf.methods.serialize(soar_tf.methods.get("soar"))
    >>> config["class_name"]
    'SOAR'
    """
    return keras.saving.serialize_keras_object(method)


def deserialize(config):
    """Builds a method from `serialize`'s dictionary.

    Args:
        config: The dictionary.

    Example:

    >>> import soar_tf
    >>> config = soar_tf.methods.serialize(soar_tf.methods.get("trades", beta=1))
    >>> soar_tf.methods.deserialize(config).beta
    1.0
    """
    return keras.saving.deserialize_keras_object(config)


__all__ = [
    "ALL_OBJECTS",
    "CURE",
    "LLR",
    "MART",
    "SOAR",
    "TRADES",
    "Adversarial",
    "Fast",
    "Forward",
    "GradientNorm",
    "Jacobian",
    "Method",
    "Standard",
    "Sum",
    "Terms",
    "deserialize",
    "get",
    "serialize",
]
