"""Import on first use, old names of modules, and registration with Keras when it is imported."""

import importlib
import importlib.abc
import importlib.util
import sys


def load(package, exports, name):
    """Resolves `package.name` (a module or a module's member) on its first use."""
    if name not in exports:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module = importlib.import_module(exports[name])
    value = module if exports[name].endswith(f".{name}") else getattr(module, name)
    setattr(sys.modules[package], name, value)
    return value


def rename(moved):
    """Lets modules be imported under the names that they had before.

    Args:
        moved: Maps a module's old dotted name to its present one.
    """
    sys.meta_path.append(_Renamed(moved))


class _Renamed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under an old name: it is the very module of the present one."""

    def __init__(self, moved):
        self.moved, self.specs = moved, {}

    def find_spec(self, fullname, path, target=None):
        if fullname not in self.moved:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec):
        module = importlib.import_module(self.moved[spec.name])
        self.specs[spec.name] = module.__spec__, module.__loader__
        return module

    def exec_module(self, module):
        # The import system has just written the old name's into it.
        module.__spec__, module.__loader__ = self.specs.pop(module.__spec__.name)


def after_import(triggers, module):
    """Imports `module` as soon as one of `triggers` has been imported.

    Keras can only load what is registered with it, but importing Keras takes seconds, which
    `soar-tf --help` must not pay.

    Args:
        triggers: Module names: Keras, and everything that `module` itself imports and that imports
            Keras, since that must be complete before `module` can use it.
        module: The module that registers the classes.
    """
    if triggers[0] in sys.modules:
        importlib.import_module(module)
    else:
        sys.meta_path.insert(0, _AfterImport(triggers, module))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the first trigger as the other finders do, and imports `module` after it."""

    def __init__(self, triggers, module):
        self.triggers, self.module = triggers, module

    def find_spec(self, fullname, path, target=None):
        if fullname not in self.triggers:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenImport(spec.loader, self.module)
        return spec


class _ThenImport(importlib.abc.Loader):
    def __init__(self, loader, module):
        self.loader, self.module = loader, module

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        importlib.import_module(self.module)
