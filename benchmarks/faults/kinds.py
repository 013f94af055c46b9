"""The faults. Each function tries one kind and returns its `Trial`s."""

import contextlib
import dataclasses
import functools
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import time

from benchmarks.faults import data, within
from benchmarks.faults.outcome import Trial
from benchmarks.faults.runs import ADVERSARIAL, SOAR, Run, has_ended, kill_at, wait, wait_until

# What is killed: every kind of state that a checkpoint holds is in one of them.
RUNS = (
    ("--method", "standard", "--epochs", "3"),
    SOAR,
    (*ADVERSARIAL, "--early-stopping", "2"),
)


class Bench:
    """Where the faults are tried, and the results of uninterrupted runs.

    Args:
        folder: A `pathlib.Path` for all runs.
        seed: Seed of the moments.
    """

    def __init__(self, folder, seed=0):
        self.folder, self.random, self._count = folder, random.Random(seed), 0

    def new(self, arguments=RUNS[0], where=None):
        """A run in a new folder."""
        self._count += 1
        return Run((where or self.folder) / f"run{self._count}", arguments)

    @functools.cache  # noqa: B019 (one bench a process)
    def reference(self, arguments):
        """An uninterrupted run's result, seconds, number of file system calls and kilobytes."""
        run, counted = self.new(arguments), self.folder / "calls"
        started = time.monotonic()
        code = run.finish(functools.partial(_count_calls, counted))
        if code != 0:
            raise RuntimeError(f"the reference run failed: {run.said()}")
        calls = len(counted.read_bytes())
        counted.unlink()
        return run.result(), time.monotonic() - started, calls, run.kilobytes()

    def resume(self, run, refused=False, before=None):
        """The `Trial` of a run that goes on after a fault."""
        if before is not None and run.epochs() < before:
            return Trial(refused, lost=f"{before} was complete, {run.epochs()} is left")
        if (code := run.finish()) != 0:
            return Trial(refused, lost=f"exit code {code}: {run.said()[-1:]}")
        equal = run.result() == self.reference(tuple(run.arguments_given))[0]
        return Trial(refused, equal, None if equal else "other weights or another log")


def _count_calls(path):
    for name in ("fsync", "replace", "rename"):
        setattr(os, name, _counted(getattr(os, name), path))


def _counted(function, path):
    def calling(*arguments, **keywords):
        with open(path, "ab") as file:
            file.write(b".")
        return function(*arguments, **keywords)

    return calling


def one_sentence(run, code, expected):
    """A refusal, or what is wrong with it."""
    said = run.said()
    sentences = [line for line in said if line.startswith(("Error:", "Failed:", "Interrupted"))]
    if code not in (1, 2) or len(sentences) != 1 or expected not in sentences[0]:
        return Trial(lost=f"exit code {code}, said {said[-3:]}")
    return Trial(refused=True)


def killed_at_random(bench, tries):
    """`kill -9` at a random moment; a run may be hit several times before it ends."""
    trials = []
    while len(trials) < tries:
        arguments = RUNS[len(trials) % len(RUNS)]
        seconds = bench.reference(arguments)[1]
        run, kills, ended, before = bench.new(arguments), 0, False, None
        for _ in range(min(3, tries - len(trials))):
            child = run.start()
            time.sleep(bench.random.uniform(0, seconds))
            if ended := has_ended(child):
                wait(child)
                break
            os.kill(child, signal.SIGKILL)
            wait(child)
            kills += 1
            if before is not None and run.epochs() < before:
                break
            before = run.epochs()
        trial = bench.resume(run, before=before)
        trials += [dataclasses.replace(trial) for _ in range(kills)]
        del ended
    return trials


def killed_while_writing(bench, tries):
    """`kill -9` just before or after a file is synced or renamed."""
    trials = []
    for number in range(tries):
        arguments = RUNS[number % len(RUNS)]
        calls = bench.reference(arguments)[2]
        run = bench.new(arguments)
        moment = bench.random.randrange(calls)
        call = bench.random.choice(("before", "after"))
        if (code := run.finish(functools.partial(kill_at, call, moment))) != -signal.SIGKILL:
            trials.append(Trial(lost=f"the run ended with {code} before call {moment}"))
            continue
        trials.append(bench.resume(run))
    return trials


def signalled(bench, tries, number):
    """A signal that asks to stop: one sentence, then the same command goes on."""
    trials = []
    for attempt in range(4 * tries):
        arguments = RUNS[attempt % len(RUNS)]
        run = bench.new(arguments)
        child = run.start()
        wait_until((run.folder / "config.toml").is_file, child)
        time.sleep(bench.random.uniform(0, 0.5 * bench.reference(arguments)[1]))
        os.kill(child, number)
        if (code := wait(child)) == 0:  # it had just ended
            continue
        before = run.epochs()
        refusal = one_sentence(run, code, "nterrupted")
        trials.append(refusal if refusal.lost else bench.resume(run, True, before))
        if len(trials) == tries:
            break
    return trials


terminated = functools.partial(signalled, number=signal.SIGTERM)
interrupted = functools.partial(signalled, number=signal.SIGINT)


@contextlib.contextmanager
def disk(bench, kilobytes):
    """A small file system of its own; yields its folder and a function that changes it."""
    folder = bench.folder / f"disk{bench.random.randrange(10**9)}"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    mount(f"size={kilobytes}k")
    try:
        yield folder, lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(bench, tries):
    """A disk that fills up somewhere in the run: one sentence; with room, the run goes on."""
    trials = []
    for number in range(3 * tries):
        arguments = RUNS[number % len(RUNS)]
        needed = bench.reference(arguments)[3]
        with disk(bench, bench.random.randrange(needed // 8, needed)) as (folder, change):
            run = bench.new(arguments, folder)
            run.output = bench.folder / "full.stderr"
            if (code := run.finish()) == 0:  # it just fitted
                continue
            refusal = one_sentence(run, code, "No space left on device")
            before = run.epochs()
            change("size=20m")
            trials.append(refusal if refusal.lost else bench.resume(run, True, before))
        if len(trials) == tries:
            break
    return trials


def file_size_limit(bench, tries):
    """A limit on the size of files (a quota): one sentence, then the run goes on without it."""
    trials = []
    for _ in range(tries):
        run = bench.new()
        limit = bench.random.randrange(1000, 30_000)

        def prepare(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        code = run.finish(prepare)
        refusal = one_sentence(run, code, "File too large")
        trials.append(refusal if refusal.lost else bench.resume(run, True, run.epochs()))
    return trials


def read_only(bench, tries):
    """A file system that has become read-only: one sentence; writable again, the run goes on."""
    trials = []
    for _ in range(tries):
        with disk(bench, 20_000) as (folder, change):
            run = bench.new(where=folder)
            run.output = bench.folder / "read-only.stderr"
            _kill_after_epoch(bench, run)
            before = run.epochs()
            change("ro")
            refusal = one_sentence(run, run.finish(), "Read-only file system")
            change("rw")
            trials.append(refusal if refusal.lost else bench.resume(run, True, before))
    return trials


def two_processes(bench, tries):
    """A second process on the same folder is refused; the first does not notice."""
    trials = []
    for _ in range(tries):
        run = bench.new()
        child = run.start()
        wait_until((run.folder / ".lock").is_file, child)
        second = Run(run.folder, RUNS[0])
        second.output = bench.folder / "second.stderr"
        refusal = one_sentence(second, second.finish(), "in use by another process")
        code = wait(child)
        trials.append(
            Trial(lost=f"the first ended with {code}") if code else bench.resume(run, True)
        )
        if refusal.lost:
            trials[-1] = refusal
    return trials


def clock_jump(bench, tries):
    """The clock goes back a year in the middle of a run, and files get odd times."""

    def prepare():
        now, calls = time.time, iter(range(10**9))
        time.time = lambda: now() - (365 * 86400 if next(calls) > 20 else 0)

    trials = []
    for _ in range(tries):
        run = bench.new()
        _kill_after_epoch(bench, run, prepare)
        for path in (run.folder / "checkpoints").iterdir():
            moment = bench.random.randrange(2**31)
            os.utime(path, (moment, moment))
        before = run.epochs()
        code = run.finish(prepare)
        trials.append(Trial(lost=f"{code}") if code else bench.resume(run, before=before))
    return trials


def not_finite(bench, tries):
    """A loss that becomes NaN: one sentence, and the last good network is kept."""
    trials = []
    for _ in range(tries):
        run = bench.new(
            tuple(shlex.split("--method soar --pretrain-epochs 1 --epochs 2 --learning-rate 1e30"))
        )
        trial = one_sentence(run, run.finish(), "The loss became")
        kept = (run.folder / "standard.keras").is_file()
        trials.append(trial if kept else Trial(lost="the standard network is gone"))
    return trials


def damaged_checkpoint(bench, tries):
    """The newest checkpoint is flipped, cut or emptied, or both are: named, and gone round."""
    trials = []
    for number in range(tries):
        run = bench.new(RUNS[number % len(RUNS)])
        _kill_after_epoch(bench, run)
        found = sorted((run.folder / "checkpoints").glob("*.weights.h5"))
        damaged = found if number % 4 == 3 else found[-1:]
        for path in damaged:
            data.damage(path, bench.random)
        trial = bench.resume(run)
        named = all(any(path.name in line for line in run.said()) for path in damaged)
        trials.append(trial if named else Trial(lost="the damaged file was not named"))
    return trials


def damaged_data(bench, tries):
    """A damaged npz file, TFDS record or image: one sentence, and nothing is written."""
    trials = []
    for number in range(tries):
        folder = bench.folder / f"data{number}"
        dataset, extra, expected = data.KINDS[number % len(data.KINDS)](folder, bench.random)
        run = bench.new()
        run.arguments = [
            "train",
            "--dataset",
            dataset,
            *extra,
            "--evaluate",
            "0",
            "--verbose",
            "0",
            "--workdir",
            str(run.folder),
        ]
        trial = one_sentence(run, run.finish(), expected)
        trials.append(trial if not run.folder.exists() else Trial(lost="something was written"))
        shutil.rmtree(folder)
    return trials


def other_environment(bench, tries):
    """Other settings that change bits: one sentence; under the old ones, the run goes on."""
    trials = []
    for _ in range(tries):
        run = bench.new()
        _kill_after_epoch(bench, run)
        before = run.epochs()
        code = run.finish(lambda: os.environ.update(TF_ENABLE_ONEDNN_OPTS="0"))
        refusal = one_sentence(run, code, "--allow-mixed-environment")
        trials.append(refusal if refusal.lost else bench.resume(run, True, before))
    return trials


def _kill_after_epoch(bench, run, prepare=None):
    """Kills a run as soon as it has a checkpoint or two."""
    child = run.start(prepare)
    count = bench.random.choice((1, 2))
    folder = run.folder / "checkpoints"
    wait_until(lambda: len(list(folder.glob("0*.weights.h5"))) >= count, child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    wait(child)


# Kind, function, tries in the full table, tries in the default test, needs a mount.
KINDS = (
    ("kill -9 at a random moment", killed_at_random, 54, 3, False),
    ("kill -9 at a sync or rename", killed_while_writing, 24, 1, False),
    ("kill -9 within an epoch", within.killed, 16, 1, False),
    ("kill -9 of a worker within an epoch", within.worker_killed, 6, 0, False),
    ("SIGTERM", terminated, 3, 1, False),
    ("Ctrl-C", interrupted, 3, 1, False),
    ("full disk", full_disk, 6, 1, True),
    ("limit on file sizes", file_size_limit, 3, 1, False),
    ("read-only file system", read_only, 2, 1, True),
    ("two processes, one folder", two_processes, 2, 1, False),
    ("clock set back", clock_jump, 2, 0, False),
    ("NaN or infinite loss", not_finite, 1, 0, False),
    ("damaged checkpoint", damaged_checkpoint, 6, 1, False),
    ("damaged data file", damaged_data, 6, 0, False),
    ("other environment", other_environment, 1, 1, False),
)
