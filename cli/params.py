"""Parameter types and options that several commands share."""

import re
import shutil
import sys
import textwrap

import click

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.runs import cluster as clusters
from soar_tf.validation import parse_number


class KeyValue(click.ParamType):
    """`KEY=VALUE`, given as often as needed."""

    name = "KEY=VALUE"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key or not text:
            self.fail(f"{value!r} is not of the form KEY=VALUE.", param, ctx)
        return key.strip(), text.strip()


class Number(click.ParamType):
    """A number or a fraction such as `8/255`."""

    name = "NUMBER"

    def convert(self, value, param, ctx):
        try:
            return parse_number(value, param.name)
        except InputError as error:
            self.fail(str(error), param, ctx)


class NumberOrSchedule(Number):
    """A number, or the text of a schedule, which is checked where schedules are known."""

    def convert(self, value, param, ctx):
        return value if "(" in str(value) else super().convert(value, param, ctx)


class Size(click.ParamType):
    """`HEIGHTxWIDTH` in pixels, or one number for a square."""

    name = "HxW"

    def convert(self, value, param, ctx):
        if isinstance(value, list):
            return value
        sides = value.lower().split("x")
        if len(sides) > 2 or not all(re.fullmatch(r"0*[1-9][0-9]{0,5}", side) for side in sides):
            self.fail(f"{value!r} is not of the form HxW, such as 32x32.", param, ctx)
        return [int(sides[0]), int(sides[-1])]


class PathName(click.Path):
    """A path that a file or folder can have; whether it exists is for the command to say."""

    def convert(self, value, param, ctx):
        try:
            files.check_path(value, param.name)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


POSITIVE = click.IntRange(min=1)

verbose_option = click.option(
    "--verbose",
    type=click.IntRange(0, 1),
    default=1,
    show_default=True,
    help="0: silent, 1: progress and time left on stderr.",
)


def cluster_options(command):
    """The options that say which devices and hosts train together."""
    options = (
        click.option(
            "--strategy",
            type=click.Choice(clusters.STRATEGIES),
            help="mirrored: all GPUs of this host; multi-worker: several hosts, each with this "
            "command. [default: one device]",
        ),
        click.option(
            "--hosts",
            metavar="HOST:PORT,...",
            help="All hosts of multi-worker, the same on each. [default: from TF_CONFIG]",
        ),
        click.option(
            "--rank",
            type=click.IntRange(min=0),
            help="Which of --hosts this worker is; 0 writes the results. [default: from TF_CONFIG]",
        ),
        click.option(
            "--connect-timeout",
            type=POSITIVE,
            default=300,
            show_default=True,
            help="Seconds to wait for the other hosts.",
        ),
        click.option(
            "--restarts",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Number of restarts by itself after another worker was lost.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")


def table(rows, header, width=None):
    """A plain text table; the first column is left-aligned, the others right.

    Where the terminal is too narrow, long names of the first column are broken into several lines;
    figures never are.

    Args:
        rows: Rows of cells.
        header: The columns' names.
        width: Columns of the terminal. Default: those of stdout, if it is one; else no limit.
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sum(widths) * 2
    rest = sum(widths[1:]) + 2 * (len(header) - 1)
    widths[0] = min(widths[0], max(width - rest, _NARROWEST_NAME))
    lines = ["  ".join("-" * width for width in widths)]
    for row in cells:
        first, *others = textwrap.wrap(row[0], widths[0]) or [""]
        figures = (cell.rjust(widths[i + 1]) for i, cell in enumerate(row[1:]))
        lines.append("  ".join([first.ljust(widths[0]), *figures]).rstrip())
        lines += others
    lines.insert(0, lines.pop(1))
    return "\n".join(lines)


# Names are not broken into smaller pieces than this, however narrow the terminal is.
_NARROWEST_NAME = 12
