"""Packages that only some uses need, and the extras that install them."""

import importlib.util

from soar_tf.errors import InputError


def require(modules, extra, what):
    """Refuses what needs modules that are not installed.

    Args:
        modules: Names of top-level modules.
        extra: The extra of this package that installs them.
        what: What needs them.

    Raises:
        InputError: If one of them is missing; it says what to install.

    Example:

    >>> from soar_tf.models.extras import require
    >>> require(["no_such_module"], "onnx", "ONNX")
    Traceback (most recent call last):
    soar_tf.errors.InputError: ONNX needs no_such_module, which is not installed; run: pip install \
'soar-tf[onnx]'.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"{what} needs {module}, which is not installed; run: pip install "
                f"'soar-tf[{extra}]'."
            )
