"""Hooks of MkDocs: pages that are made from files outside `docs/`, and links out of it.

README.md, CONTRIBUTING.md and CHANGELOG.md stand at the top of the repository, where people look
for them. On the site they are pages, and links between them and `docs/` are turned accordingly; a
link to another file of the repository, which the site does not have, becomes its path.
"""

import posixpath
import re
from pathlib import Path

import click
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_log = get_plugin_logger("pages")


def on_files(files, config):
    """Adds the pages that no file in `docs/` holds."""
    for source, page in PAGES.items():
        text = turned(ROOT.joinpath(source).read_text(encoding="utf-8"), source)
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "command_line.md", content=command_line()))
    return files


def on_page_markdown(markdown, page, **_):
    """Turns the links of the pages in `docs/`."""
    if page.file.src_uri in PAGES.values():
        return markdown
    return turned(markdown, f"docs/{page.file.src_uri}")


def turned(text, source):
    """`text`, a file of the repository, with its links as the site needs them."""
    here = PAGES.get(source, source.removeprefix("docs/"))

    def link(match):
        image, label, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / path).exists():
            generated = path.removeprefix("docs/") in (*PAGES.values(), "command_line.md")
            if not generated:
                _log.warning("%s: the link to %s leads nowhere.", source, target)
            return match[0]
        if path in PAGES:
            path = PAGES[path]
        elif path.startswith("docs/") and (ROOT / path).is_file():
            path = path.removeprefix("docs/")
        else:
            return f"{label} (`{path}`)" if label.strip("`") != path else f"`{path}`"
        relative = posixpath.relpath(path, posixpath.dirname(here) or ".")
        return f"{image}[{label}]({relative}{anchor or ''})"

    return _LINK.sub(link, text)


def command_line():
    """The help of `soar-tf` and of every command, as a page."""
    from soar_tf.cli.main import main

    context = click.Context(main, info_name="soar-tf", max_content_width=100)
    parts = ["# Command line", _block(main.get_help(context))]
    for name, command in sorted(main.commands.items()):
        inner = click.Context(command, info_name=name, parent=context, max_content_width=100)
        parts += [f"## soar-tf {name}", _block(command.get_help(inner))]
    return "\n\n".join(parts) + "\n"


def _block(text):
    return f"```text\n{text}\n```"
