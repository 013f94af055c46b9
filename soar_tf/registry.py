"""Registered objects: construction from a name, configs that round-trip, and plugins.

Methods, attacks and networks of other distributions are found through entry points: a
distribution declares, say, `[project.entry-points."soar_tf.methods"]` with `name =
"module:Class"`. Entry points are read when a name is looked up or listed, and each is loaded by
itself, so that one that is broken spoils nothing else.
"""

import functools
import importlib.metadata
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


def group(room):
    """The entry point group of a room: `"soar_tf.methods"` and so on."""
    return f"soar_tf.{room}"


def available(room, built_in, accepts):
    """Everything registered: the package's own objects, then those of plugins that work.

    Args:
        room: `"methods"`, `"attacks"` or `"networks"`.
        built_in: The room's own registry.
        accepts: Callable that says whether a loaded object is one of the room's kind.

    Returns:
        `(objects, problems)`: names to objects, and for the others names to a sentence each.
    """
    objects, problems = dict(built_in), {}
    for name, points in _entry_points(group(room)).items():
        found, problem = _load(room, name, points, built_in, accepts)
        if problem is None:
            objects[name] = found
        else:
            problems[name] = problem
    return objects, problems


def find(room, name, built_in, accepts, kind, more=()):
    """The object that a name stands for; plugins are looked at for names not built in.

    Args:
        room, built_in, accepts: See `available`.
        name: The name.
        kind: What the name stands for, for the error: `"method"`.
        more: Further names that are allowed, for the error.

    Raises:
        InputError: If there is no such name, or if its plugin cannot be loaded.
    """
    if name in built_in:
        return built_in[name]
    objects, problems = available(room, built_in, accepts)
    if name in problems:
        raise InputError(problems[name])
    if name not in objects:
        raise unknown(kind, name, [*objects, *more])
    return objects[name]


def _entry_points(name):
    points = {}
    for point in importlib.metadata.entry_points(group=name):
        # A distribution that lies on the path twice is found twice.
        same = points.setdefault(point.name, [])
        if (point.value, _owner(point)) not in [(p.value, _owner(p)) for p in same]:
            same.append(point)
    return points


def _load(room, name, points, built_in, accepts):
    """`(object, None)` or `(None, sentence)` for the entry points of one name."""
    what = f"The {room} plugin {name!r} of {' and '.join(map(_owner, points))}"
    if name in built_in:
        return None, f"{what} is left out: soar-tf has its own {name!r}."
    if len(points) > 1:
        return None, f"{what} is left out: the name is taken twice; uninstall one of them."
    try:
        found = _loaded(points[0])
    except Exception as error:  # whatever a stranger's module does on import
        return None, f"{what} cannot be loaded: {type(error).__name__}: {error}."
    if not accepts(found):
        return None, f"{what} cannot be used: {points[0].value} is not one of the {room}."
    return found, None


@functools.cache
def _loaded(point):
    return point.load()


def _owner(point):
    return point.dist.name if point.dist is not None else "an unknown distribution"
