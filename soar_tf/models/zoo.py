"""The zoo: trained networks with their model cards, as `zoo:NAME` or by these functions.

An entry is a folder with `model.keras`, `saved_model/`, `card.json` and a `README.md` made of the
card. This module imports neither TensorFlow nor Keras, so that `soar-tf list zoo` and a shell's
completion answer at once.
"""

import os
import re
from pathlib import Path

from soar_tf import files
from soar_tf.errors import InputError, unknown

SCHEME = "zoo:"
VARIABLE = "SOAR_TF_ZOO"
CARD, NETWORK, SAVED_MODEL, README = "card.json", "model.keras", "saved_model", "README.md"
MAX_BYTES = 90_000_000  # of the whole zoo: it is part of every clone
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_NEEDED = {"format": int, "name": str, "config": dict, "weights": str, "report": dict}
FORMAT = 1

__all__ = ["card", "folder", "load", "names", "path"]


def folder():
    """The zoo's folder: the environment variable `SOAR_TF_ZOO`, else the clone's `saved_models/`.

    Returns:
        A `pathlib.Path`.

    Raises:
        InputError: If there is none, as in an installation that is no clone.

    Example:

    >>> import soar_tf
    >>> soar_tf.zoo.folder().is_dir()
    True
    """
    if given := os.environ.get(VARIABLE):
        if not Path(given).is_dir():
            raise InputError(f"{VARIABLE} must name a folder of networks. Received: {given}.")
        return Path(given)
    found = Path(__file__).resolve().parents[2] / "saved_models"
    if not found.is_dir():
        raise InputError(
            "The zoo's networks are in the repository's saved_models/, not in the installed "
            f"package: clone it, and set {VARIABLE} to that folder."
        )
    return found


def names():
    """The names of the zoo's networks, sorted.

    Raises:
        InputError: If there is no zoo here, see `folder`.

    Example:

    >>> import soar_tf
    >>> all(soar_tf.zoo.path(name).is_dir() for name in soar_tf.zoo.names())
    True
    """
    return sorted(entry.name for entry in folder().iterdir() if _is_listed(entry))


def path(name):
    """The folder of a network: `model.keras`, `saved_model/`, `card.json`, `README.md`.

    Args:
        name: One of `names()`; a leading `zoo:` is taken off.

    Returns:
        A `pathlib.Path`.

    Raises:
        InputError: For an unknown name, or if there is no zoo here.

    Example:

    >>> import soar_tf
    >>> [soar_tf.zoo.path(name).name for name in soar_tf.zoo.names()] == soar_tf.zoo.names()
    True
    """
    name, known = str(name).removeprefix(SCHEME), names()
    if not known:
        raise InputError(f"The zoo in {folder()} holds no networks. Received: {name!r}.")
    if name not in known:
        raise unknown("zoo network", name, known)
    return folder() / name


def card(name):
    """A network's model card: how it was trained, and the full report of its evaluation.

    Args:
        name: One of `names()`.

    Returns:
        A dictionary: `commands`, `config`, `seed`, `versions`, `data`, `training` (a row an epoch),
        `report` (that of `soar-tf evaluate`), `check`, `limits` and more.

    Raises:
        InputError: For an unknown name, or a card that is damaged.

    Example:

    >>> import soar_tf
    >>> cards = [soar_tf.zoo.card(name) for name in soar_tf.zoo.names()]
    >>> all(0 <= card["report"]["worst_case_accuracy"] <= 1 for card in cards)
    True
    """
    return read_card(path(name))


def load(name):
    """A network of the zoo.

    Args:
        name: One of `names()`.

    Returns:
        A `keras.Model`: images `[B, H, W, C]` in [0, 1] to logits `[B, num_classes]`.

    Raises:
        InputError: For an unknown name, or a file that cannot be read.

    Example:

    >>> import soar_tf
    >>> networks = [soar_tf.zoo.load(name) for name in soar_tf.zoo.names()[:1]]
    >>> all(network.output_shape[0] is None for network in networks)
    True
    """
    from soar_tf.models.untrusted import keras_files

    file = path(name) / NETWORK
    return keras_files.load(file, str(file))


def located(model):
    """Turns `zoo:NAME` into the network's folder; anything else comes back as a path.

    Args:
        model: What a user gave for a model. `./zoo:NAME` is a file of that name.
    """
    if isinstance(model, str) and model.startswith(SCHEME):
        return path(model)
    return Path(model)


def _is_listed(place):
    return _NAME.fullmatch(place.name) and is_entry(place)


def is_entry(place):
    """Whether a path is the folder of a zoo network."""
    return (Path(place) / CARD).is_file() and (Path(place) / NETWORK).is_file()


def check_name(name):
    """Refuses a name that could not be typed after `zoo:` or be a folder's."""
    if not _NAME.fullmatch(name):
        raise InputError(
            "`name` must be lower-case letters, digits, '.', '_' and '-', such as "
            f"cifar10-cnn4-soar-zero. Received: {name!r}."
        )
    return name


def read_card(place):
    """The card in an entry's folder.

    Raises:
        InputError: If it cannot be read, or lacks what everybody needs.
    """
    file = Path(place) / CARD
    found = files.read_json(file)
    if found is None:
        raise InputError(f"{file} does not exist.")
    for key, kind in _NEEDED.items():
        if not isinstance(found.get(key), kind):
            raise InputError(f"{file} is no model card: `{key}` is missing or of another type.")
    if found["format"] != FORMAT:
        raise InputError(
            f"{file} has format {found['format']}; this version of soar-tf reads {FORMAT}."
        )
    return found


def figures(found):
    """The figures of a card that a table shows.

    Args:
        found: A card.

    Returns:
        A dictionary: `method`, `network`, `dataset`, `n`, shares `clean`, `fgsm`, `pgd20` and
        `autoattack` (`None` where it was not run), the `interval` of the worst case, `masking` and
        `bytes`.

    Raises:
        InputError: If the card lacks any.
    """
    try:
        return _figures(found)
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"The model card of {found['name']} lacks figures.") from None


def attack_key(name):
    """An attack's name in tables: AutoAttack's without its arguments."""
    return "autoattack" if name.startswith("autoattack:") else name


def _figures(found):
    report, config = found["report"], found["config"]
    shares = {attack_key(entry["name"]): entry["robust_accuracy"] for entry in report["attacks"]}
    masking = report.get("masking", {}).get("verdict", "not checked")
    return {
        "method": config.get("method"),
        "network": config.get("network"),
        "dataset": report["dataset"],
        "n": report["n"],
        "clean": report["clean_accuracy"],
        **{name: shares.get(name) for name in ("fgsm", "pgd20", "autoattack")},
        "interval": report["worst_case_interval"],
        "masking": "unreliable" if report["reliability"] == "unreliable" else masking,
        "bytes": sum(found.get("files", {}).values()),
    }
