"""Loading TensorFlow without its start-up messages."""

import contextlib
import os
import select
import signal
import sys
import tempfile
import threading
import warnings

import click

from soar_tf.errors import InputError


def load_tensorflow():
    """Imports TensorFlow and Keras quietly; every command that needs them calls this first.

    Warnings become one line each, without the place in the source.

    TensorFlow writes about CPU flags and missing CUDA straight to file descriptor 2, before any
    setting can stop it; none of it is something a user can act on.

    Raises:
        InputError: If the environment asks for another Keras backend.
        click.ClickException: If TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if (backend := os.environ["KERAS_BACKEND"]) != "tensorflow":
        raise InputError(f"KERAS_BACKEND must be tensorflow, or not be set. Received: {backend}.")
    try:
        with _stderr_set_aside():
            import tensorflow as tf

            tf.config.list_physical_devices()
        warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed; run: pip install soar-tf (or 'soar-tf[gpu]')."
        ) from None


def stop_on_sigterm():
    """Lets SIGTERM end a command as Ctrl-C does: with its checkpoint in place, and a word."""
    signal.signal(signal.SIGTERM, _interrupt)


@contextlib.contextmanager
def second_signal_ends_at_once():
    """Context in which the second Ctrl-C or SIGTERM ends the process, whatever it is doing.

    Python handles a signal when TensorFlow gives control back to it, which a loop inside a model
    may never do. Files are whole or not there at every moment, so nothing is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Python writes a signal's number there as it arrives, in the middle of TensorFlow's work, too.
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_end_at_second_signal, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(writer)
        watcher.join()


def _end_at_second_signal(reader):
    received, told = 0, False
    with open(reader, "rb", buffering=0) as stream:
        while True:
            wait = _PATIENCE if received and not told else None
            if not select.select([stream], [], [], wait)[0]:
                told = True
                os.write(2, b"Interrupted, at the next step; a second Ctrl-C ends at once.\n")
                continue
            if not (numbers := stream.read(64)):
                return
            received += sum(number in (signal.SIGINT, signal.SIGTERM) for number in numbers)
            if received > 1:
                os.write(2, b"Ended at once.\n")
                os._exit(1)


# Seconds for the first signal to end a command before a word on the second one.
_PATIENCE = 1.0


def _interrupt(*_):
    raise KeyboardInterrupt


@contextlib.contextmanager
def _stderr_set_aside():
    """Keeps what is written to file descriptor 2, and shows it only if the block fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(saved, aside.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


_RESTARTED = "SOAR_TF_RESTARTED"


def start_again(error, restarts):
    """Replaces this process by a new one with the same command, `restarts` times at most.

    TensorFlow cannot connect anew within a process.
    """
    done = int(os.environ.get(_RESTARTED, "0"))
    if done >= restarts:
        raise error from None
    click.echo(f"{error}\nStarting again ({done + 1} of {restarts}).", err=True)
    environment = {**os.environ, _RESTARTED: str(done + 1)}
    sys.stdout.flush()
    command = [sys.executable, "-m", "soar_tf.cli", *sys.argv[1:]]
    os.execve(sys.executable, command, environment)
