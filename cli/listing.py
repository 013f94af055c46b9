"""`soar-tf list`."""

import importlib
import inspect
import json

import click

from soar_tf import registry
from soar_tf.cli import params, reference
from soar_tf.cli.startup import load_tensorflow
from soar_tf.errors import InputError
from soar_tf.formatting import percent, radius_text

_ROOMS = (
    *("methods", "attacks", "corruptions", "datasets", "networks", "formats", "presets"),
    "zoo",
)
_REFERENCES = ("methods", "attacks", "networks")
# Registries that are elsewhere than in the package of their name.
_MODULES = {"formats": "soar_tf.models.exports"}


@click.command("list", short_help="List methods, attacks, data sets, networks, formats and more.")
@click.argument("kind", type=click.Choice(_ROOMS))
@params.json_option
@click.option("--markdown", is_flag=True, help="Print a reference in Markdown, with the docs.")
def list_names(kind, as_json, markdown):
    """List what is registered, with its arguments; installed plugins are included.

    The zoo's networks, which every command takes as zoo:NAME, are listed with their figures.

    Example: soar-tf list methods
    """
    others = {"corruptions": _corruptions, "datasets": _datasets, "presets": _presets, "zoo": _zoo}
    entries = others[kind]() if kind in others else _objects(kind)
    if markdown:
        if kind not in _REFERENCES:
            raise InputError(f"`--markdown` is for methods, attacks and networks, not {kind}.")
        click.echo(reference.markdown(kind, *_room(kind).available()[:1]), nl=False)
        return
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    if kind == "zoo":
        click.echo(_zoo_table(entries))
        return
    for name, entry in entries.items():
        click.echo(f"{name}: {entry['summary']}")
        arguments = entry.get("arguments", {})
        if arguments:
            click.echo("    " + ", ".join(f"{k}={v}" for k, v in arguments.items()))


def _corruptions():
    functions, problems = _room("corruptions").available()
    for problem in problems.values():
        click.echo(problem, err=True)
    return {
        name: {"summary": (inspect.getdoc(item) or "").partition("\n")[0]}
        for name, item in functions.items()
    }


def _datasets():
    from soar_tf import datasets

    return {name: {"summary": summary} for name, summary in datasets.describe().items()}


def _presets():
    return {
        name: {
            "summary": f"{preset.summary} Figures: {preset.evidence}",
            "arguments": {k: _setting(v) for k, v in preset.settings.items()},
        }
        for name, preset in registry.PRESETS.items()
    }


def _zoo():
    from soar_tf.models import zoo

    return {name: zoo.figures(zoo.card(name)) for name in zoo.names()}


def _zoo_table(entries):
    if not entries:
        return "The zoo holds no networks."
    rows = [
        [
            name,
            entry["method"],
            *(_share(entry[key]) for key in ("clean", "pgd20", "autoattack")),
            entry["n"],
            entry["masking"],
            f"{entry['bytes'] / 1e6:.1f} MB",
        ]
        for name, entry in entries.items()
    ]
    header = ["network", "method", "clean", "PGD-20", "AutoAttack", "n", "masking", "size"]
    return params.table(rows, header)


def _share(value):
    return "not run" if value is None else percent(value)


def _setting(value):
    return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value


def _room(kind):
    load_tensorflow()
    return importlib.import_module(_MODULES.get(kind, f"soar_tf.{kind}"))


def _objects(kind):
    room = _room(kind)
    entries = {}
    objects, problems = room.available()
    for problem in problems.values():
        click.echo(problem, err=True)
    for name, item in objects.items():
        signature = inspect.signature(item).parameters.values()
        arguments = {p.name: _default(p) for p in signature}
        summary = (inspect.getdoc(item) or "").partition("\n")[0]
        entries[name] = {"summary": summary, "arguments": arguments}
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
        return radius_text(value)
    return list(value) if isinstance(value, tuple) else value
