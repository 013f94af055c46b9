"""Importing the package is light, and registers its classes whatever is imported first."""

import subprocess
import sys

import pytest

import soar_tf


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_the_command_line_needs_no_tensorflow():
    result = _run(
        "import sys\nimport soar_tf.cli.main, soar_tf.datasets, soar_tf.runs.config\n"
        "print([m for m in ('tensorflow', 'keras', 'numpy.random') if m in sys.modules][:2])"
    )
    assert "tensorflow" not in result.stdout and "keras" not in result.stdout


@pytest.mark.parametrize("first", ["tensorflow", "soar_tf.networks", "soar_tf.ops.losses"])
def test_classes_are_registered_whatever_is_imported_first(first):
    result = _run(
        f"import soar_tf\nimport {first}\nimport keras\n"
        "print(keras.saving.get_registered_object('soar_tf>SOARModel').__name__)"
    )
    assert result.stdout == "SOARModel\n"


def test_every_public_name_exists():
    assert soar_tf.__all__ == sorted(soar_tf.__all__)
    for name in soar_tf.__all__:
        assert getattr(soar_tf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        soar_tf.nonsense  # noqa: B018
