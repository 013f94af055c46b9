"""The lowest versions are read from pyproject.toml as pip needs them."""

import importlib.util
import pathlib
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("lowest", ROOT / "tools" / "lowest_versions.py")
lowest = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lowest)


def test_everything_that_the_package_imports_is_pinned_to_its_lowest_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = lowest.constraints(project)
    names = [pin.partition("==")[0] for pin in pinned]
    assert len(names) == len(set(names))
    assert {"tensorflow", "keras", "numpy", "pillow", "onnxruntime", "ai-edge-litert"} <= set(names)
    for requirement in project["dependencies"]:
        assert any(requirement.startswith(pin.replace("==", ">=")) for pin in pinned)


def test_a_requirement_without_a_lowest_version_is_an_error():
    groups = {key: [] for key in lowest.GROUPS}
    with pytest.raises(ValueError, match="'click' has no lowest version"):
        lowest.constraints({"dependencies": ["click"], "optional-dependencies": groups})
