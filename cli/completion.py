"""`soar-tf completion`, and the registered names that are completed."""

from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.models import zoo
from soar_tf.registry import Registry

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_SOAR_TF_COMPLETE"


class Registered(click.ParamType):
    """A registered name: any text is taken (its package judges it), registered ones are completed.

    Args:
        registry: The `soar_tf.registry.Registry`, whose names are known without loading anything.
        files: Whether the name may also be that of a file.
    """

    name = "NAME"

    def __init__(self, registry: Registry, files: bool = False):
        self.registry, self.files = registry, files

    def convert(self, value, param, ctx):
        if not value:
            self.fail("it must be a name. Received: ''.", param, ctx)
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx, param, incomplete):
        # `tfds:NAME` is offered as far as it goes: `tfds:`.
        names = (
            name.partition(":")[0] + ":" if ":" in name else name
            for name in (*self.registry, *self.registry.examples)
        )
        offered = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        if self.files and not offered:
            return [CompletionItem(incomplete, type="file")]
        return offered


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
