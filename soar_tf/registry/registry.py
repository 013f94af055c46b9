"""`Registry`: names of objects that are loaded on first use, and the plugins that join them.

Objects of other distributions are found through entry points: a distribution declares, say,
`[project.entry-points."soar_tf.methods"]` with `name = "module:Class"`. Entry points are read when
a name is looked up or listed, and each is loaded by itself, so that a broken one affects no other.
"""

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from soar_tf.errors import InputError, unknown
from soar_tf.registry.configurable import construct


class Registry(MutableMapping):
    """A mapping from names to objects, which are imported when they are first looked up.

    The mapping itself has the package's own objects only; `find`, `build` and `available` include
    plugins.

    Args:
        group: What is registered, in the plural: `"methods"`. The plugins' entry point group is
            `"soar_tf.methods"`.
        kind: What a name stands for, for error messages: `"method"`.
        entries: Maps names to `"module:object"`.
        accepts: Says whether a plugin's object is one of this kind.
        examples: Further names that `find` does not know but users may give, such as `"pgd20"`.

    Example:

    >>> from soar_tf import registry
    >>> "soar" in registry.METHODS, registry.METHODS["soar"].__name__
    (True, 'SOAR')
    """

    def __init__(
        self,
        group: str,
        kind: str,
        entries: Mapping[str, str],
        accepts: Callable[[Any], bool],
        examples: tuple[str, ...] = (),
    ):
        self.group, self.kind, self.examples = group, kind, tuple(examples)
        self._entries: dict[str, Any] = dict(entries)
        self._accepts = accepts

    def __getitem__(self, name: str) -> Any:
        entry = self._entries[name]
        return load(entry) if isinstance(entry, str) else entry

    def __setitem__(self, name: str, value: Any) -> None:
        self._entries[name] = value

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Registry of {len(self)} {self.group}>"

    def find(self, name: str) -> Any:
        """The object of a name; plugins are looked at for names that are not built in.

        Raises:
            InputError: If there is no such name, or if its plugin cannot be loaded.
        """
        if name in self:
            return self[name]
        points = _entry_points(self.group)
        if name not in points:
            working = [other for other in points if self._plugin(other, points[other])[1] is None]
            raise unknown(self.kind, name, [*self, *working, *self.examples])
        value, problem = self._plugin(name, points[name])
        if problem is not None:
            raise InputError(problem)
        return value

    def build(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Calls the object of a name with arguments.

        Raises:
            InputError: As `find`, and for an argument that is unknown or missing.
        """
        return construct(self.kind, self.find(name), name, arguments)

    def available(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Everything registered: the package's own objects, then those of plugins that work.

        Returns:
            `(objects, problems)`: names to objects, and for the others names to a message each.
        """
        objects, problems = dict(self), {}
        for name, points in _entry_points(self.group).items():
            value, problem = self._plugin(name, points)
            if problem is None:
                objects[name] = value
            else:
                problems[name] = problem
        return objects, problems

    def register_with_keras(self) -> None:
        """Lets Keras save and load the package's own objects."""
        import keras

        for value in self.values():
            keras.saving.register_keras_serializable(package="soar_tf")(value)

    def serialize(self, value: Any) -> dict[str, Any]:
        """An object of a registered class as a plain dictionary."""
        import keras

        return keras.saving.serialize_keras_object(value)

    def deserialize(self, config: dict[str, Any], check: Callable[..., None]) -> Any:
        """Builds an object from `serialize`'s dictionary.

        Args:
            config: The dictionary.
            check: Called with a dictionary and its name in errors; refuses what could do more than
                compute.

        Raises:
            InputError: If `check` refuses it.
        """
        import keras

        check({"config": config}, "`config`")
        return keras.saving.deserialize_keras_object(config)

    def _plugin(self, name, points):
        """`(object, None)` or `(None, message)` for the entry points of one name."""
        what = f"The {self.group} plugin {name!r} of {' and '.join(map(_owner, points))}"
        if name in self:
            return None, f"{what} is left out: soar-tf has its own {name!r}."
        if len(points) > 1:
            return None, f"{what} is left out: the name is taken twice; uninstall one of them."
        try:
            value = _loaded(points[0])
        except Exception as error:  # whatever another distribution's module does on import
            return None, f"{what} cannot be loaded: {type(error).__name__}: {error}."
        if not self._accepts(value):
            return None, f"{what} cannot be used: {points[0].value} is not one of the {self.group}."
        return value, None


def load(text: str) -> Any:
    """The object that `"module:object"` names."""
    module, _, name = text.partition(":")
    return getattr(importlib.import_module(module), name)


def subclass_of(base: str) -> Callable[[Any], bool]:
    """Accepts subclasses of `"module:Class"`, which is imported when the first one is judged."""
    return lambda value: isinstance(value, type) and issubclass(value, load(base))


def instance_of(cls: str) -> Callable[[Any], bool]:
    """Accepts instances of `"module:Class"`."""
    return lambda value: isinstance(value, load(cls))


def function_of(*arguments: str) -> Callable[[Any], bool]:
    """Accepts functions that have at least these arguments."""
    return lambda value: (
        callable(value) and set(arguments) <= set(inspect.signature(value).parameters)
    )


def _entry_points(group):
    points: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=f"soar_tf.{group}"):
        # A distribution that is on the path twice is found twice.
        same = points.setdefault(point.name, [])
        if (point.value, _owner(point)) not in [(p.value, _owner(p)) for p in same]:
            same.append(point)
    return points


@functools.cache
def _loaded(point):
    return point.load()


def _owner(point):
    return point.dist.name if point.dist is not None else "an unknown distribution"
