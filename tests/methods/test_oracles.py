"""Every registered method has a test here that compares it with formulas in float64."""

from pathlib import Path

import pytest

from soar_tf import methods


@pytest.mark.parametrize("name", methods.ALL_OBJECTS)
def test_an_oracle_stands_beside_every_method(name):
    path = Path(__file__).with_name(f"test_{name.replace('-', '_')}.py")
    assert path.exists() and "linear_oracle" in path.read_text()
