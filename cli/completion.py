"""`soar-tf completion`, and the registered names that are completed."""

import ast
import functools
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

import soar_tf
from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.models import zoo

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_SOAR_TF_COMPLETE"
# Registries that are elsewhere than in the package of their name.
_REGISTRIES = {
    "networks": "models/networks.py",
    "export_formats": "models/exports/__init__.py",
}


@functools.cache
def registered(room: str) -> tuple[str, ...]:
    """The registered names of a room: methods, attacks, datasets, networks or export_formats.

    They are read from the registry's source, since importing it would load TensorFlow, and a shell
    must not wait seconds for a Tab.

    Args:
        room: The room.

    Returns:
        The names, as they are registered.
    """
    if room == "datasets":
        from soar_tf import datasets

        return (*datasets.NAMES, *(name for name in datasets.describe() if ":" in name))
    folder = Path(soar_tf.__file__).parent
    path = _REGISTRIES.get(room, f"{room}/__init__.py")
    source = (folder / path).read_text("utf-8")
    names: list[str] = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign):
            continue
        target = getattr(node.targets[0], "id", "")
        if target == "ALL_OBJECTS" and isinstance(node.value, ast.Dict):
            names += [ast.literal_eval(key) for key in node.value.keys if key is not None]
        elif target == "EXAMPLES":
            names += ast.literal_eval(node.value)
    return tuple(names)


class Registered(click.ParamType):
    """A registered name: any text is taken (the room judges it), registered ones are completed.

    Args:
        room: methods, attacks, datasets or networks.
    """

    name = "NAME"

    def __init__(self, room: str):
        self.room = room

    def convert(self, value, param, ctx):
        if not value:
            self.fail("it must be a name. Received: ''.", param, ctx)
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx, param, incomplete):
        # `tfds:NAME` is offered as far as it goes: `tfds:`.
        names = (
            name.partition(":")[0] + ":" if ":" in name else name for name in registered(self.room)
        )
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        if self.room == "networks" and not found:
            return [CompletionItem(incomplete, type="file")]
        return found


class Model(click.Path):
    """A model: a path, or `zoo:NAME`, whose names are completed."""

    def convert(self, value, param, ctx):
        try:
            files.check_path(value, param.name)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx, param, incomplete):
        # From the second letter on: what begins with a z may well be a file.
        if incomplete.startswith("zo"):
            found = [CompletionItem(name) for name in zoo_models() if name.startswith(incomplete)]
            if found:
                return found
        return super().shell_complete(ctx, param, incomplete)


def zoo_models() -> list[str]:
    """`zoo:NAME` of every network of the zoo; none where there is no zoo."""
    try:
        return [zoo.SCHEME + name for name in zoo.names()]
    except (InputError, OSError):
        return []


@click.command(short_help="Print the shell's completion script.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context, shell):
    """Print the script that lets SHELL complete commands, options and registered names.

    bash: soar-tf completion bash > ~/.local/share/bash-completion/completions/soar-tf

    zsh: soar-tf completion zsh > DIR/_soar-tf, for a DIR in $fpath

    fish: soar-tf completion fish > ~/.config/fish/completions/soar-tf.fish
    """
    main = context.find_root().command
    complete: Any = get_completion_class(shell)
    script = complete(main, {}, "soar-tf", _VARIABLE)
    script._check_version = lambda: None  # the script may be for another machine's bash
    click.echo(script.source())
