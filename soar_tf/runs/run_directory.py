"""A training run's folder: who may write to it, and what lies where."""

import dataclasses
import fcntl
import os
import sys
from pathlib import Path

import tomli_w

from soar_tf import files, methods
from soar_tf.errors import InputError, RunError
from soar_tf.runs.config_file import read_toml

NETWORK = "model.keras"
STANDARD = "standard.keras"
SAVED_MODEL = "saved_model"
LOG = "log.csv"
MANIFEST = "manifest.json"
CONFIG = "config.toml"
CHECKPOINTS = "checkpoints"


def is_run(path):
    """Whether `path` is a run directory."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / MANIFEST).is_file()


def _is_ours_alone(name):
    """The lock, and what a killed process had begun to write: nobody's work."""
    return name == ".lock" or name.startswith(files.UNFINISHED)


def plain(method):
    """A method's arguments as a configuration holds them: TOML has no `None`."""
    return {k: "none" if v is None else v for k, v in method.get_config().items()}


def _all_arguments(method, arguments):
    """A method's arguments with the defaults of those left out: of those newer than a run, too."""
    try:
        return plain(methods.get(method, **arguments))
    except InputError:  # a run of a method that is not here, or no longer takes them
        return arguments


class RunDirectory:
    """The folder that `soar-tf train --workdir` names, locked while it is open.

    Opening it checks before anything is written: another run's folder, a foreign folder, a second
    process and an unwritable place are refused.

    Args:
        path: The folder; it is created if it does not exist.
        config: The run's resolved `TrainConfig`.

    Raises:
        InputError: If the folder cannot be used for this configuration.
    """

    def __init__(self, path, config):
        self.path = files.check_path(path, "workdir")
        self._check(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = files.open_lock(self.path / ".lock")
        except OSError as error:
            raise InputError(f"`workdir` {path} cannot be written: {error.strerror}.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise InputError(f"`workdir` {path} is in use by another process.") from None
        except OSError as error:
            self._lock.close()
            raise InputError(
                f"`workdir` {path} is on a file system that cannot lock files: {error.strerror}; "
                "use a folder on another one."
            ) from None
        try:
            for folder in (self.path, self.path / CHECKPOINTS):
                for left in folder.glob(f"{files.UNFINISHED}*"):
                    files.remove(left)
            self._write_config(config.to_dict())
        except OSError as error:
            self.close()
            raise InputError(f"`workdir` {path} cannot be written: {error.strerror}.") from None

    def _check(self, config):
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise InputError(f"`workdir` must be a folder. Received: the file {self.path}.")
        entries = {entry.name for entry in self.path.iterdir() if not _is_ours_alone(entry.name)}
        if not entries:
            return
        if CONFIG not in entries:
            raise InputError(
                f"`workdir` must be empty or a run of the same configuration. {self.path} holds "
                f"other files, such as {min(entries)!r}."
            )
        for name in (CONFIG, MANIFEST, LOG, CHECKPOINTS, SAVED_MODEL, NETWORK, STANDARD):
            if (self.path / name).is_symlink():
                raise InputError(
                    f"`workdir` {self.path} must hold no links. Received: the link {name}."
                )
        stored = read_toml(self.path / CONFIG)
        config = dataclasses.replace(
            config, method_args=_all_arguments(config.method, config.method_args)
        )
        arguments = stored.get("method_args", {})
        stored["method_args"] = _all_arguments(stored.get("method", config.method), arguments)
        if changed := config.differences(stored):
            # What the others' defaults follow from.
            name = min(changed, key=lambda one: one not in ("dataset", "method", "network"))
            raise InputError(
                f"`workdir` {self.path} holds a run of another configuration: {name} is "
                f"{stored.get(name)!r} there and {config.to_dict().get(name)!r} here; use another "
                "workdir."
            )

    def _write_config(self, values):
        """Writes the configuration of a new run; of an earlier one, where its data are now."""
        path = self.path / CONFIG
        if path.exists():
            stored = read_toml(path)
            if stored.get("data_dir") == values.get("data_dir"):
                return
            values = {**stored, "data_dir": values.get("data_dir")}
        values = {name: value for name, value in values.items() if value is not None}
        files.write_text(path, tomli_w.dumps(values))

    def check_place(self):
        """Refuses to go on where the folder has been moved away, and another may have its name.

        Raises:
            RunError: If it has.
        """
        try:
            there = (self.path / ".lock").stat()
        except OSError:
            there = None
        ours = os.fstat(self._lock.fileno())
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise RunError(
                f"{self.path} is not the folder any more in which this run began: it was moved or "
                "replaced; what it had saved is kept where it is now."
            )

    def close(self):
        """Gives the folder free."""
        self._lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __truediv__(self, name):
        return self.path / name

    def manifest(self):
        """The manifest as a dictionary, `{}` if there is none yet or a damaged one."""
        try:
            return files.read_json(self / MANIFEST) or {}
        except InputError as error:
            # Checkpoints hold all that resuming needs.
            print(f"{error} It is written anew.", file=sys.stderr)
            return {}

    def is_complete(self):
        """Whether the run has ended and its results are still there."""
        results = (NETWORK, SAVED_MODEL, LOG)
        status = self.manifest().get("status")
        return status == "complete" and all((self / name).exists() for name in results)

    def update_manifest(self, **values):
        """Merges values into the manifest."""
        files.write_json(self / MANIFEST, {**self.manifest(), **values})
