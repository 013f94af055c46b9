"""`soar-tf list`."""

import importlib
import inspect
import json

import click

from soar_tf.cli import params
from soar_tf.cli.startup import load_tensorflow

_ROOMS = ("methods", "attacks", "datasets", "networks")


@click.command("list", short_help="List methods, attacks, data sets or networks.")
@click.argument("kind", type=click.Choice(_ROOMS))
@params.json_option
def list_names(kind, as_json):
    """List what is registered: methods, attacks, datasets or networks, with their arguments.

    Example: soar-tf list methods
    """
    entries = _datasets() if kind == "datasets" else _objects(kind)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    for name, entry in entries.items():
        click.echo(f"{name}: {entry['summary']}")
        arguments = entry.get("arguments", {})
        if arguments:
            click.echo("    " + ", ".join(f"{k}={v}" for k, v in arguments.items()))


def _datasets():
    from soar_tf import datasets

    return {name: {"summary": summary} for name, summary in datasets.describe().items()}


def _objects(kind):
    load_tensorflow()
    room = importlib.import_module(f"soar_tf.{kind}")
    entries = {}
    for name, item in room.ALL_OBJECTS.items():
        signature = inspect.signature(item).parameters.values()
        arguments = {p.name: _default(p) for p in signature}
        entries[name] = {
            "summary": (inspect.getdoc(item) or name).splitlines()[0],
            "arguments": arguments,
        }
    for name in getattr(room, "EXAMPLES", ()):
        config = room.get(name).get_config()
        entries[name] = {
            "summary": f"{type(room.get(name)).__name__} with these arguments",
            "arguments": {k: _value(v) for k, v in config.items()},
        }
    return entries


def _default(parameter):
    if parameter.default is inspect.Parameter.empty:
        return "required"
    return _value(parameter.default)


def _value(value):
    if isinstance(value, float):
        return params.number_text(value)
    return list(value) if isinstance(value, tuple) else value
