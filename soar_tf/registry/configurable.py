"""Objects that are described by their constructor's arguments."""

import inspect

from soar_tf.errors import InputError, unknown


class Configurable:
    """An object whose constructor arguments are stored under the same names.

    `get_config` therefore needs no code of its own, and unknown arguments are refused with the
    nearest match.
    """

    def get_config(self):
        """Returns the constructor's arguments as plain values."""
        return {name: getattr(self, name) for name in argument_names(type(self))}

    @classmethod
    def from_config(cls, config):
        """Builds the object; see `get_config`."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def argument_names(cls):
    """The constructor's argument names, in order."""
    return [name for name in inspect.signature(cls).parameters if name != "kwargs"]


def defaults(cls):
    """The constructor's arguments and their defaults, e.g. for `soar-tf list methods`."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if name != "kwargs"
    }


def construct(kind, cls, name, arguments):
    """Calls `cls(**arguments)`; an unknown argument is an `InputError` with the nearest match."""
    allowed = argument_names(cls)
    for argument in arguments:
        if argument not in allowed:
            raise unknown(f"argument of {kind} {name!r}:", argument, allowed)
    required = [
        argument
        for argument, default in defaults(cls).items()
        if default is inspect.Parameter.empty and argument not in arguments
    ]
    if required:
        raise InputError(f"The {kind} {name!r} needs the argument `{required[0]}`.")
    return cls(**arguments)
