"""Real processes that train a tiny network, alone or two together, and what is left of them.

TensorFlow takes seconds to start, so a process that has imported it, but not yet used it, forks a
child for every run. The child is a process of its own: a signal hits it as it hits any other.
"""

import csv
import itertools
import os
import shlex
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

TINY = tuple(
    shlex.split(
        "--dataset digits --network mlp --network-arg width=0.05 --limit 64 --batch-size 32 "
        "--verbose 0 --evaluate 0"
    )
)

# Training whose checkpoints hold every kind of state beside the weights.
ADVERSARIAL = tuple(
    shlex.split(
        "--method adversarial --method-arg steps=2 --epochs 4 --optimizer adam --keep-best "
        "--validation-attack fgsm"
    )
)
SOAR = ("--method", "soar", "--pretrain-epochs", "1", "--epochs", "2", "--augment")


class Run:
    """One `soar-tf train` in a child process, or several in the same folder.

    Args:
        folder: The run directory.
        arguments: Arguments of `soar-tf train` beyond the tiny network's.
    """

    def __init__(self, folder, arguments=("--method", "standard", "--epochs", "3")):
        self.folder, self.arguments_given = Path(folder), arguments
        self.arguments = ["train", *TINY, *arguments, "--workdir", str(folder)]
        self.output = self.folder.with_name(f"{self.folder.name}.stderr")

    def rank(self, hosts, rank):
        """The same run as one of several workers.

        Args:
            hosts: `host:port` of each.
            rank: Which one it is.
        """
        one = Run(self.folder, self.arguments_given)
        one.arguments += [
            "--strategy",
            "multi-worker",
            "--hosts",
            ",".join(hosts),
            "--rank",
            str(rank),
            "--connect-timeout",
            "60",
        ]
        one.output = self.output.with_suffix(f".rank{rank}.stderr")
        return one

    def start(self, prepare=None):
        """Forks a child that trains; `prepare` runs in it first."""
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            self._train(prepare)
        return child

    def _train(self, prepare):
        code = 70
        try:
            descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            from soar_tf.cli.main import main

            # A shell that starts this in the background makes it ignore Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)

            if prepare is not None:
                prepare()
            main(self.arguments)
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def finish(self, prepare=None):
        """Trains to the end; returns the exit code, negative for a signal."""
        return wait(self.start(prepare))

    def said(self):
        """The lines that the last child wrote, without the libraries' own."""
        lines = self.output.read_text(errors="replace").splitlines()
        noise = ("WARNING", "I0000", "W0000", "E0000")
        return [line for line in lines if line.strip() and not line.startswith(noise)]

    def epochs(self):
        """What is complete: the newest undamaged checkpoint's place, and the results."""
        from soar_tf.runs import checkpoints

        folder = self.folder / "checkpoints"
        found = checkpoints._found(folder) if folder.is_dir() else []
        whole = [order for order, *_ in found if checkpoints.find(folder, *order)]
        return max(whole, default=(0, 0, 0)), (self.folder / "model.keras").is_file()

    def kilobytes(self):
        """What the folder takes on a disk."""
        return sum(path.stat().st_blocks for path in self.folder.rglob("*")) // 2

    def result(self):
        """The weights' bits and the log's rows."""
        return weights(self.folder / "model.keras"), log(self.folder / "log.csv")


def weights(path):
    """The bytes of every array in a `.keras` file, read without TensorFlow."""
    import io
    import zipfile

    import h5py

    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    found = {}
    with h5py.File(content, "r") as file:
        file.visititems(
            lambda name, item: found.update(
                {name: np.asarray(item).tobytes()} if isinstance(item, h5py.Dataset) else {}
            )
        )
    return found


def log(path):
    """The rows of a log.csv."""
    with open(path, newline="") as file:
        return list(csv.reader(file))


def kill_within_epoch(number, when):
    """Makes this process kill itself (`kill -9`) in the middle of an epoch.

    Args:
        number: After how many of its training steps.
        when: `"before"` the step's checkpoint is due, or `"after"`.
    """
    from soar_tf.runs.within_epoch import CheckpointWithinEpoch

    count, told = itertools.count(1), CheckpointWithinEpoch.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        mine = next(count) == number
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        told(self, batch, logs)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)

    CheckpointWithinEpoch.on_train_batch_end = on_train_batch_end


def wait(child):
    """A child's exit code, negative for a signal."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def has_ended(child):
    """Whether a child has ended, without taking its exit code away."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_until(condition, child, seconds=120):
    """Waits for something to appear while a child runs; returns whether it did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        if has_ended(child):
            return False
        time.sleep(0.01)
    return False


def kill_at(call, number, names=("fsync", "replace", "rename")):
    """Makes this process kill itself (`kill -9`) at one of its calls of the file system.

    Args:
        call: `"before"` or `"after"` the call is made.
        number: Which call, from 0.
        names: Functions of `os` that are counted.
    """
    count = iter(range(10**9))

    def wrapped(function):
        def calling(*arguments, **keywords):
            mine = next(count) == number
            if mine and call == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **keywords)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return calling

    for name in names:
        setattr(os, name, wrapped(getattr(os, name)))
