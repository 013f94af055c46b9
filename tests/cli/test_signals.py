"""Ctrl-C ends a command even where Python never gets to handle it."""

import signal
import subprocess
import sys
import time

# A thread that waits for a lock of its own inside C is as deaf to Python's signals as TensorFlow in
# an endless loop of a model's.
STUCK = """
import ctypes, sys
from soar_tf.cli.startup import second_signal_ends_at_once, stop_on_sigterm
stop_on_sigterm()
with second_signal_ends_at_once():
    try:
        library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        library.pthread_mutex_lock(lock)
        print("ready", flush=True)
        while sys.argv[1] == "deaf":
            library.pthread_mutex_lock(lock)
        sys.stdin.read()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.stdin.read()
        print("read", flush=True)
"""


def start(kind):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    if kind == "deaf":
        time.sleep(0.5)  # from the message to the lock
    return process


def test_the_second_signal_ends_a_process_that_is_stuck():
    process = start("deaf")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # two of one kind could arrive as one
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (1, "", "Ended at once.\n")


def test_the_second_signal_ends_a_process_that_takes_its_time_to_end():
    for second in (signal.SIGINT, signal.SIGTERM):
        process = start("hearing")
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        process.send_signal(second)
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out, error) == (1, "", "Ended at once.\n")


def test_a_process_that_is_stuck_says_how_to_end_it():
    process = start("deaf")
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == (
        "Interrupted, at the next step; a second Ctrl-C ends at once.\n"
    )
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "Ended at once.\n")


def test_one_signal_interrupts_as_ever():
    process = start("hearing")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "interrupted\n"
    out, error = process.communicate("", timeout=60)
    assert (process.returncode, out) == (0, "read\n")
    assert error in ("", "Interrupted, at the next step; a second Ctrl-C ends at once.\n")


def test_what_was_woken_before_is_woken_again_afterwards():
    import os

    from soar_tf.cli.startup import second_signal_ends_at_once

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        with second_signal_ends_at_once():
            pass
        assert signal.set_wakeup_fd(before) == writer
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
