"""`Registry`: names load on first use, plugins join, and the nearest match is named."""

import subprocess
import sys
from pathlib import Path

import pytest

from soar_tf import methods, registry
from soar_tf.errors import InputError
from soar_tf.models.untrusted import keras_configs
from soar_tf.registry import Registry
from soar_tf.registry.registry import function_of, instance_of, subclass_of

TABLES = [table for table in vars(registry).values() if isinstance(table, Registry)]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def numbers():
    entries = {"half": "fractions:Fraction", "whole": "builtins:int"}
    return Registry("numbers", "number", entries, accepts=callable, examples=("third",))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.group)
def test_every_line_names_an_object_of_its_kind(table):
    assert len(table) > 0
    for name, value in table.items():
        assert table._accepts(value), name
        assert value.__doc__ and (not callable(value) or value.__doc__.strip())


def test_no_class_of_a_method_or_attack_is_left_out():
    from soar_tf import attacks

    for package, base, table in [
        (methods, methods.Method, registry.METHODS),
        (attacks, attacks.Attack, registry.ATTACKS),
    ]:
        public = [getattr(package, name) for name in package.__all__]
        classes = {v for v in public if isinstance(v, type) and issubclass(v, base)}
        abstract = {base, methods.Regularizer, attacks.Transferred}
        assert classes - abstract == set(table.values())


def test_importing_the_registry_loads_nothing():
    code = (
        "import sys, soar_tf.registry\nprint([m for m in ('numpy', 'keras') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_it_is_a_mapping_that_can_be_changed(numbers):
    from fractions import Fraction

    assert list(numbers) == ["half", "whole"] and len(numbers) == 2
    assert numbers["half"] is Fraction and "third" not in numbers and numbers.get("third") is None
    numbers["third"] = float
    assert numbers.find("third") is float
    del numbers["third"]
    with pytest.raises(KeyError):
        numbers["third"]
    assert repr(numbers) == "<Registry of 2 numbers>"


def test_an_unknown_name_or_argument_names_the_nearest(numbers):
    with pytest.raises(InputError) as error:
        numbers.find("halt")
    assert str(error.value) == (
        "Unknown number 'halt'. Did you mean 'half'? Allowed: half, third, whole."
    )
    assert numbers.build("half", {"numerator": 1, "denominator": 2}) == 1 / 2
    with pytest.raises(InputError, match="argument of number 'half':.*'denominator'"):
        numbers.build("half", {"denominatr": 2})


def test_what_is_accepted():
    is_method = subclass_of("soar_tf.methods.method:Method")
    assert is_method(methods.SOAR) and not is_method(methods.get("soar")) and not is_method(3)
    is_path = instance_of("pathlib:Path")
    assert is_path(ROOT) and not is_path(Path)
    builds = function_of("a", "b")
    assert builds(lambda a, b, c=1: a) and not builds(lambda a: a) and not builds("a, b")


def test_what_is_serialized_comes_back_and_is_checked_before():
    stored = registry.METHODS.serialize(methods.get("trades", beta=2))
    assert registry.METHODS.deserialize(stored, keras_configs.check).beta == 2

    def refuse(config, name):
        assert config == {"config": stored} and name == "`config`"
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        registry.METHODS.deserialize(stored, refuse)
