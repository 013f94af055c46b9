"""What the configuration of a `.keras` file may name; it is judged before Keras reads it.

Keras's safe mode is a list of what is forbidden, and a configuration can name any function or class
of Keras and have it called with arguments of its own. Here is a list of what is allowed: layers and
functions that only compute, and whatever this process has registered with Keras itself.
"""

import re

from soar_tf.errors import InputError
from soar_tf.models.untrusted import printable
from soar_tf.models.untrusted.known_names import KERAS_CLASSES, KERAS_FUNCTIONS

# Where Keras looks for a function of the module "builtins", by its name alone.
_BUILTIN = ("keras.activations", "keras.losses", "keras.metrics")
_NUMBERS = re.compile(r"bool|u?int(8|16|32|64)|b?float(16|32|64)")
_ARRAYS = ("__tensor__", "__numpy__")
_VALUES = ("__keras_tensor__", "__slice__", "__ellipsis__", *_ARRAYS)
_FUNCTIONS = ("function", "__lambda__")
# The settings of a Lambda layer that are called.
_CALLED = ("function", "mask", "output_shape")


def check(config, name):
    """Refuses a configuration that names anything that could do more than compute.

    Args:
        config: The dictionary in `config.json`.
        name: What the file is called in errors.

    Raises:
        InputError: If it names a class or a function that is neither on the list nor registered
            in this process, has a class where a function belongs, or calls a layer with text.
    """
    # How the model was compiled is not read; a compiled model inside it is.
    waiting = [({**config, "compile_config": None}, "the model")]
    while waiting:
        value, layer = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, layer) for item in value]
        elif isinstance(value, dict):
            layer = _layer(value) or layer
            if "class_name" in value:
                _check_object(value, layer, name)
            for key, item in value.items():
                if key == "inbound_nodes":
                    _check_calls(item, layer, name)
                else:
                    waiting.append((item, layer))


def _layer(value):
    """How a layer is called in errors, or `None` if the dictionary is no layer's."""
    inner = value.get("config")
    own = inner.get("name") if isinstance(inner, dict) else None
    return f"layer {own[:100]!r}" if isinstance(own, str) else None


def _check_object(value, layer, name):
    kind = value["class_name"]
    if kind == "function":
        _check_function(value, layer, name)
    elif kind in _ARRAYS:
        _check_array(value, layer, name)
    elif kind == "__lambda__":
        raise InputError(
            f"{name} must hold no Python code. Received: a Python lambda in {layer}; use a named "
            "function that is registered by keras.saving.register_keras_serializable."
        )
    elif kind not in _VALUES:
        _check_class(value, layer, name)


def _check_class(value, layer, name):
    kind, module = value["class_name"], value.get("module")
    if not isinstance(kind, str) or "module" not in value:
        raise InputError(f"{name} must name its classes and their modules. Received: {layer}.")
    # Keras reads names like `__typespec__` in ways of its own, whatever is registered.
    if kind.startswith("__"):
        raise _unknown("class", module, kind, layer, name)
    if _registered(value.get("registered_name", kind)) is not None:
        return
    if not isinstance(module, str) or kind not in KERAS_CLASSES.get(module, ()):
        raise _unknown("class", module, kind, layer, name)
    if kind == "Lambda":
        _check_lambda(value, layer, name)


def _check_function(value, layer, name):
    function, module = value.get("config"), value.get("module")
    registered = _registered(function)
    if isinstance(registered, type):
        raise InputError(
            f"{name} must hold a function where one is called. Received: the class "
            f"{function[:100]!r} in {layer}."
        )
    if registered is not None or _is_known_function(function, module, value):
        return
    raise _unknown("function", module, function, layer, name)


def _is_known_function(function, module, value):
    if not isinstance(function, str) or not isinstance(module, str):
        return False
    if value.get("registered_name") not in (None, "function", function):
        return False
    places = _BUILTIN if module == "builtins" else (module,)
    if any(function in KERAS_FUNCTIONS.get(place, ()) for place in places):
        return True
    # Keras finds registered functions without their package here, as Keras 3.6 and older wrote.
    import keras

    objects = keras.saving.get_custom_objects().items()
    same = [item for key, item in objects if key.endswith(f">{function}")]
    return module == "builtins" and bool(same) and not any(isinstance(i, type) for i in same)


def _check_lambda(value, layer, name):
    inner = value.get("config")
    for key in _CALLED:
        called = inner.get(key) if isinstance(inner, dict) else None
        is_object = isinstance(called, dict) and called.get("class_name") in _FUNCTIONS
        is_value = key != "function" and not isinstance(called, (str, dict))
        if not is_object and not is_value:
            raise InputError(
                f"{name} must hold a function where one is called. Received: `{key}` of {layer} is "
                f"{_short(called)}."
            )


def _check_array(value, layer, name):
    """A type of text may ask for gigabytes by its name alone."""
    inner = value.get("config")
    dtype = inner.get("dtype") if isinstance(inner, dict) else None
    if not isinstance(dtype, str) or not _NUMBERS.fullmatch(dtype):
        raise InputError(
            f"{name} must hold arrays of numbers. Received: {_short(dtype)} in {layer}."
        )


def _check_calls(nodes, layer, name):
    """The calls of one layer: tensors and numbers, and at least one tensor each."""
    for node in nodes if isinstance(nodes, list) else [nodes]:
        if not node:
            continue
        if isinstance(node, dict):
            parts, tensors = [node], 0
        else:
            parts, tensors = _older_call(node, layer, name)
        while parts:
            part = parts.pop()
            if isinstance(part, list):
                parts += part
            elif isinstance(part, dict) and "class_name" not in part:
                parts += part.values()
            elif isinstance(part, dict):
                tensors += part["class_name"] == "__keras_tensor__"
                parts += _inside(part, layer, name)
            elif isinstance(part, str):
                raise InputError(
                    f"{name} must call its layers with tensors and numbers. Received: the text "
                    f"{part[:100]!r} for {layer}."
                )
        if not tensors:
            raise InputError(
                f"{name} must call its layers with tensors. Received: none for {layer}."
            )


def _inside(part, layer, name):
    """What is left to look at in one argument of a call."""
    kind, inner = part["class_name"], part.get("config")
    if kind not in _VALUES:
        raise InputError(
            f"{name} must call its layers with tensors and numbers. Received: "
            f"{_short(kind)} for {layer}."
        )
    if kind in _ARRAYS:
        _check_array(part, layer, name)
    return [inner] if kind == "__slice__" else []


def _older_call(node, layer, name):
    """`(what else to look at, number of tensors)` of `[[layer, node, tensor, arguments], ...]`."""
    rest = []
    for item in node if isinstance(node, list) else [node]:
        right = (
            isinstance(item, list)
            and len(item) in (3, 4)
            and isinstance(item[0], str)
            and all(type(number) is int for number in item[1:3])
        )
        if not right:
            raise InputError(
                f"{name} must call its layers with tensors and numbers. Received: {_short(item)} "
                f"for {layer}."
            )
        rest += item[3:]
    return rest, len(node)  # each item is a tensor


def _registered(key):
    """What this process has registered under a name, or `None`."""
    import keras

    return keras.saving.get_registered_object(key) if isinstance(key, str) else None


def _unknown(what, module, kind, layer, name):
    place = printable(f"{module}.{kind}" if module else kind)
    reason = (
        "which is not among those known to do nothing but compute"
        if str(module).partition(".")[0] == "keras"
        else "which is not registered in this process (keras.saving.register_keras_serializable)"
    )
    return InputError(f"{name} names the {what} {place} in {layer}, {reason}.")


def _short(value):
    return repr(value)[:100]
