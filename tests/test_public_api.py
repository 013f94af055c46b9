"""The public names and signatures are those of `public_api.txt`, and each is documented.

A change here is a change for users: write it in CHANGELOG.md, and store the new list with
`python tests/test_public_api.py`.
"""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

import soar_tf

STORED = Path(__file__).with_name("public_api.txt")
MODULES = (
    "attacks",
    "callbacks",
    "corruptions",
    "datasets",
    "evaluation",
    "methods",
    "model_files",
    "networks",
    "saved_model",
    "training",
    "zoo",
)
# To be subclassed: the guides show how.
BASE_CLASSES = ("Attack", "Method", "Regularizer", "Schedule")
# What every Keras callback and model takes.
UNDOCUMENTED = ("self", "args", "kwargs")


def members(name):
    """A module's public functions and classes: those of `__all__`, or else its own."""
    module = importlib.import_module(f"soar_tf.{name}")
    listed = getattr(module, "__all__", None) or [
        key
        for key, item in vars(module).items()
        if not key.startswith("_") and getattr(item, "__module__", "") == module.__name__
    ]
    return {key: getattr(module, key) for key in sorted(listed) if callable(getattr(module, key))}


PUBLIC = [(f"{name}.{key}", item) for name in MODULES for key, item in members(name).items()]


def listing():
    """One line for each public name, with its signature (defaults included, annotations not)."""
    lines = [f"soar_tf.{name}" for name in soar_tf.__all__]
    for name, item in PUBLIC:
        lines.append(f"soar_tf.{name}{_signature(item)}")
        if inspect.isclass(item):
            lines += [
                f"soar_tf.{name}.{key}{_signature(method)}"
                for key, method in sorted(vars(item).items())
                if inspect.isfunction(method) and not key.startswith("_")
            ]
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _signature(item):
    try:
        signature = inspect.signature(item)
    except ValueError:  # an exception class without a constructor of its own
        return "(...)"
    empty = inspect.Signature.empty
    plain = [p.replace(annotation=empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=empty))
    return re.sub(r"(<[^<>]*?) at 0x[0-9a-f]+|(\d\.\d{6})\d+", r"\1\2", text)


def test_the_public_names_and_signatures_are_the_stored_ones():
    assert listing() == STORED.read_text(), "see the top of this file"


@pytest.mark.parametrize(("name", "item"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_a_public_name_is_documented(name, item):
    text = inspect.getdoc(item)
    assert text, "no docstring"
    assert re.match(r".+[.:`)]$", text.splitlines()[0]), "the first line is no sentence"
    for argument in inspect.signature(item).parameters:
        if argument not in UNDOCUMENTED:
            assert re.search(rf"^ *\**{argument}\b[^\n]*:|\w, {argument}\b[^\n]*:", text, re.M), (
                f"`{argument}` is not described"
            )
    if not dataclasses.is_dataclass(item) and item.__name__ not in BASE_CLASSES:
        assert ">>> " in text, "no example"


if __name__ == "__main__":
    STORED.write_text(listing())
