"""Training methods: one class per file, and one line each in `soar_tf/registry/tables.py`."""

from soar_tf import registry
from soar_tf.errors import InputError
from soar_tf.methods.adversarial import Adversarial
from soar_tf.methods.cure import CURE
from soar_tf.methods.elle import ELLE
from soar_tf.methods.fast import Fast
from soar_tf.methods.forward import Forward
from soar_tf.methods.gradalign import GradAlign
from soar_tf.methods.gradient_norm import GradientNorm
from soar_tf.methods.ikl import IKL
from soar_tf.methods.jacobian import Jacobian
from soar_tf.methods.llr import LLR
from soar_tf.methods.mart import MART
from soar_tf.methods.method import Method, Terms
from soar_tf.methods.n_fgsm import NFGSM
from soar_tf.methods.proposal import Proposal, propose
from soar_tf.methods.qub import QUB
from soar_tf.methods.regularizer import Regularizer
from soar_tf.methods.schedules import Ramp, Schedule, Stairs, last_value
from soar_tf.methods.soar import SOAR
from soar_tf.methods.standard import Standard
from soar_tf.methods.sum import Sum
from soar_tf.methods.trades import TRADES
from soar_tf.models.untrusted import keras_configs

ALL_OBJECTS = registry.METHODS
ALL_OBJECTS.register_with_keras()


def get(identifier, **arguments):
    """Builds a method.

    Args:
        identifier: A `Method` (returned unchanged), a registered name such as `"soar"`, or the
            name of an installed plugin (entry point group `soar_tf.methods`).
        **arguments: The method's hyper-parameters; strings such as `"8/255"` are accepted as
            numbers.

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
    return ALL_OBJECTS.build(identifier, arguments)


def find(name):
    """The class registered under a name, plugins included.

    Args:
        name: The name, such as `"soar"`.

    Raises:
        InputError: If there is none.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.find("soar").__name__
    'SOAR'
    """
    return ALL_OBJECTS.find(name)


def available():
    """All methods by name, plugins included, and the plugins that cannot be used.

    Returns:
        `(classes, problems)`: dictionaries from names to classes and from names to messages.

    Example:

    >>> import soar_tf
    >>> "soar" in soar_tf.methods.available()[0]
    True
    """
    return ALL_OBJECTS.available()


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
    return ALL_OBJECTS.serialize(method)


def deserialize(config):
    """Builds a method from `serialize`'s dictionary.

    Args:
        config: The dictionary.

    Raises:
        InputError: If it names a class or function that is neither registered nor known to only
            compute.

    Example:

    >>> import soar_tf
    >>> config = soar_tf.methods.serialize(soar_tf.methods.get("trades", beta=1))
    >>> soar_tf.methods.deserialize(config).beta
    1.0
    """
    return ALL_OBJECTS.deserialize(config, keras_configs.check)


__all__ = [
    "ALL_OBJECTS",
    "CURE",
    "ELLE",
    "IKL",
    "LLR",
    "MART",
    "NFGSM",
    "QUB",
    "SOAR",
    "TRADES",
    "Adversarial",
    "Fast",
    "Forward",
    "GradAlign",
    "GradientNorm",
    "Jacobian",
    "Method",
    "Proposal",
    "Ramp",
    "Regularizer",
    "Schedule",
    "Stairs",
    "Standard",
    "Sum",
    "Terms",
    "available",
    "deserialize",
    "find",
    "get",
    "last_value",
    "propose",
    "serialize",
]
