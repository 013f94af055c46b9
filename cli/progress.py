"""Progress of attacks on stderr."""

import shutil
import sys
import time

import click

from soar_tf.formatting import duration_text

_TERMINAL, _PLAIN = 0.1, 15.0  # seconds from one drawing to the next


def drawer(verbose=1, prefix=""):
    """A `progress` callback that draws on stderr; `None` if `verbose` is 0.

    A terminal gets one line, drawn again and again; anything else a plain line now and then, and
    one at the end of each attack.
    """
    return _Drawer(prefix) if verbose else None


class _Drawer:
    def __init__(self, prefix):
        self.prefix = prefix
        self.terminal = sys.stderr.isatty()
        self.drawn = time.monotonic()

    def __call__(self, progress):
        ended = progress.done >= progress.total
        pause = _TERMINAL if self.terminal else _PLAIN
        if not ended and time.monotonic() - self.drawn < pause:
            return
        self.drawn = time.monotonic()
        line = self.prefix + text(progress)
        if self.terminal:
            width = shutil.get_terminal_size().columns
            click.echo(f"\r{line[: width - 1]}\x1b[K", err=True, nl=ended)
        else:
            click.echo(line, err=True)


def text(progress):
    """A `Progress` as a line."""
    parts = [f"{progress.name}: {progress.done}/{progress.total} images"]
    if progress.robust is not None:
        parts.append(f"{progress.robust} robust so far")
    if progress.seconds_left is not None and progress.seconds_left >= 1:
        parts.append(f"about {duration_text(progress.seconds_left)} left")
    return ", ".join(parts)
