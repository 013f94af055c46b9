"""Attacks: one class per file, and one line each in `soar_tf/registry/tables.py`.

`get("apgd")` builds an attack from its registered name, `get("pgd:steps=50,epsilon=4/255")` with
arguments. `pgd7`, `l2pgd40` and `l1pgd40` are PGD with that many steps.
"""

import re

from soar_tf import registry
from soar_tf.attacks.apgd import APGD, APGDT
from soar_tf.attacks.attack import Attack, as_logits_fn
from soar_tf.attacks.autoattack import AutoAttack
from soar_tf.attacks.carlini_wagner import CarliniWagner
from soar_tf.attacks.ddn import DDN
from soar_tf.attacks.deepfool import DeepFool
from soar_tf.attacks.fab import FAB, FABT
from soar_tf.attacks.fmn import FMN
from soar_tf.attacks.lbfgs import LBFGS
from soar_tf.attacks.mifgsm import MIFGSM
from soar_tf.attacks.pgd import BIM, FGSM, PGD
from soar_tf.attacks.square import Square
from soar_tf.attacks.transferred import Transferred
from soar_tf.attacks.transforms import GaussianNoise, Spatial
from soar_tf.errors import InputError
from soar_tf.models.untrusted import keras_configs
from soar_tf.validation import each_key_once

ALL_OBJECTS = registry.ATTACKS
ALL_OBJECTS.register_with_keras()

# Patterns of names, and the arguments that they imply.
_PATTERNS = (
    (re.compile(r"apgd-(ce|dlr)"), "apgd", lambda m: {"loss": m[1]}),
    (re.compile(r"pgd(\d+)"), "pgd", lambda m: {"steps": int(m[1])}),
    (
        re.compile(r"l2pgd(\d+)"),
        "pgd",
        lambda m: {"norm": "l2", "steps": int(m[1]), "epsilon": 60 / 255},
    ),
    # 12 is the usual radius of l1 results on CIFAR-10.
    (
        re.compile(r"l1pgd(\d+)"),
        "pgd",
        lambda m: {"norm": "l1", "steps": int(m[1]), "epsilon": 12.0},
    ),
)
EXAMPLES = ALL_OBJECTS.examples


def get(identifier, **defaults):
    """Builds an attack.

    Args:
        identifier: An `Attack` (returned unchanged), or a string: a registered name, `pgdN`,
            `l2pgdN` or `l1pgdN`, with optional arguments after a colon, such as
            `"pgd:steps=50,restarts=3"`.
        **defaults: Arguments used if the identifier does not set them and the attack takes them;
            `epsilon` is used only for attacks in the same `norm` (default `"linf"`).

    Returns:
        The `Attack`.

    Raises:
        InputError: For an unknown name or argument, or a value out of range.

    Example:

    >>> import soar_tf
    >>> attack = soar_tf.attacks.get("pgd:steps=50,epsilon=4/255")
    >>> attack.steps, round(attack.epsilon * 255)
    (50, 4)
    """
    if isinstance(identifier, Attack):
        return identifier
    if not isinstance(identifier, str):
        raise InputError(f"`attack` must be a name or an Attack. Received: {identifier!r}.")
    name, _, rest = identifier.partition(":")
    (cls, arguments), pairs = _resolve(name), []
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not value:
            raise InputError(
                f"Attack arguments are written name:key=value,key=value. Received: {identifier!r}."
            )
        pairs.append((key.strip(), value.strip()))
    arguments |= each_key_once(pairs, identifier)
    allowed = registry.argument_names(cls)
    common = defaults.get("norm", "linf")
    if common not in cls.norms:  # such as an l2 attack in a linf evaluation
        defaults.pop("norm", None)
    norm = arguments.get("norm", defaults.get("norm", cls.norms[0]))
    for key, value in defaults.items():
        if key == "epsilon" and norm != common:
            continue
        if key in allowed:
            arguments.setdefault(key, value)
    return registry.construct("attack", cls, name, arguments)


def _resolve(name):
    if name in ALL_OBJECTS:
        return ALL_OBJECTS[name], {}
    for pattern, base, arguments in _PATTERNS:
        if match := pattern.fullmatch(name):
            return ALL_OBJECTS[base], arguments(match)
    return ALL_OBJECTS.find(name), {}


def available():
    """All attacks by name, plugins (entry point group `soar_tf.attacks`) included.

    Returns:
        `(classes, problems)`: dictionaries from names to classes, and from the names of plugins
        that cannot be used to messages.

    Example:

    >>> import soar_tf
    >>> "square" in soar_tf.attacks.available()[0]
    True
    """
    return ALL_OBJECTS.available()


def serialize(attack):
    """The attack as a plain dictionary; see `deserialize`.

    Args:
        attack: An `Attack`.

    Example:

    >>> import soar_tf
    >>> config = soar_tf.attacks.serialize(soar_tf.attacks.get("pgd7"))
    >>> config["class_name"], config["config"]["steps"]
    ('PGD', 7)
    """
    return ALL_OBJECTS.serialize(attack)


def deserialize(config):
    """Builds an attack from `serialize`'s dictionary.

    Args:
        config: The dictionary.

    Raises:
        InputError: If it names a class or function that is neither registered nor known to only
            compute.

    Example:

    >>> import soar_tf
    >>> config = soar_tf.attacks.serialize(soar_tf.attacks.get("pgd7"))
    >>> soar_tf.attacks.deserialize(config).steps
    7
    """
    return ALL_OBJECTS.deserialize(config, keras_configs.check)


__all__ = [
    "ALL_OBJECTS",
    "APGD",
    "APGDT",
    "BIM",
    "DDN",
    "FAB",
    "FABT",
    "FGSM",
    "FMN",
    "LBFGS",
    "MIFGSM",
    "PGD",
    "Attack",
    "AutoAttack",
    "CarliniWagner",
    "DeepFool",
    "GaussianNoise",
    "Spatial",
    "Square",
    "Transferred",
    "as_logits_fn",
    "available",
    "deserialize",
    "get",
    "serialize",
]
