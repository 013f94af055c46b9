"""Options of commands, made of the settings of a configuration's dataclass."""

from typing import Any

import click

from soar_tf.cli import params
from soar_tf.cli.completion import Model, Registered
from soar_tf.registry import NETWORKS, Registry
from soar_tf.runs.settings import Setting, settings


def options(config: type, names=None, *, but=(), required=(), overlay: bool = False):
    """A decorator that gives a command one option for each setting, in the fields' order.

    Args:
        config: The dataclass.
        names: The settings' names; `None` for all.
        but: Names of settings to leave out.
        required: Names of settings that must be given.
        overlay: Whether all options that are not given are `None` or `()`, since the values of a
            preset or a file come before the defaults.
    """
    known = settings(config)
    chosen = [name for name in (known if names is None else names) if name not in but]
    unknown = {*chosen, *but, *required} - set(known)
    if unknown:
        raise TypeError(f"{config.__name__} has no setting {sorted(unknown)[0]!r}.")

    def decorate(command):
        for name in reversed(chosen):
            about, default = known[name]
            command = _option(name, about, default, overlay, name in required)(command)
        return command

    return decorate


def given(config: type, values: dict[str, Any]) -> dict[str, Any]:
    """Takes a configuration's settings out of a command's options; only those that were given."""
    found = {name: values.pop(name) for name in settings(config) if name in values}
    return {name: value for name, value in found.items() if value not in (None, ())}


def _option(name, about, default, overlay, required):
    declared = [f"--{(about.option or name).replace('_', '-')}"]
    if about.option is not None:
        declared.append(name)
    arguments: dict[str, Any] = {"metavar": about.metavar}
    text = about.help
    if about.type == "flag":
        arguments["is_flag"] = True
    elif about.type == "switch":
        if about.option is None:
            declared[0] += f"/--no-{name.replace('_', '-')}"
        else:
            on, off = about.option.split("/")
            declared[0] = f"--{on}/{off}"
        arguments["default"] = None
    else:
        arguments["type"] = _type(about)
        arguments["multiple"] = about.multiple or about.type == "pairs"
    if isinstance(about.type, tuple) and not isinstance(about.type[0], str):
        arguments["callback"] = lambda context, option, value: value and int(value)
    if required:
        arguments["required"] = True
    elif (stated := _default_text(about, default, overlay)) is not None:
        text += f" [default: {stated}]"
    elif not _is_nothing(default):
        arguments |= {"default": default, "show_default": True}
    return click.option(*declared, help=text, **arguments)


def _default_text(about: Setting, default: Any, overlay: bool) -> str | None:
    """What the help says of the default; `None` where nothing, or where click itself says it."""
    if about.unset is not None:
        return about.unset or None
    if _is_nothing(default) or not (overlay or about.late):
        return None
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    if isinstance(default, float):
        return f"{default:.0e}".replace("e-0", "e-")
    return str(default)


def _is_nothing(default: Any) -> bool:
    return default is None or default is False or default in ((), {})


def _type(about: Setting) -> Any:
    """click's type of a setting's values."""
    if isinstance(about.type, Registry):
        return Registered(about.type, files=about.type is NETWORKS)
    if isinstance(about.type, tuple):
        return click.Choice([str(choice) for choice in about.type])
    return {
        "text": None,
        "positive": params.POSITIVE,
        "natural": click.IntRange(min=0),
        "number": params.Number(),
        "schedule": params.NumberOrSchedule(),
        "size": params.Size(),
        "path": params.PathName(),
        "model": Model(),
        "pairs": params.KeyValue(),
    }[about.type]
