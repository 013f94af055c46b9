"""Kills in the middle of an epoch, of one process and of one of two workers."""

import functools
import signal

from benchmarks.faults.outcome import Trial
from benchmarks.faults.runs import ADVERSARIAL, SOAR, kill_within_epoch, wait
from benchmarks.scale_out import free_ports

# With a checkpoint after every second step. Every kind of state that one holds is in one of them.
_EVERY = ("--checkpoint-every", "2", "--batch-size", "16")
RUNS = (
    ("--method", "standard", "--epochs", "3", "--limit", "96", "--ema", "0.9", *_EVERY),
    (*SOAR, "--limit", "48", *_EVERY),
    (*ADVERSARIAL, "--early-stopping", "4", "--limit", "48", *_EVERY),
)
STEPS = (18, 9, 12)  # of each run, in all phases and epochs
TOGETHER = (
    "--method",
    "adversarial",
    "--method-arg",
    "steps=2",
    "--epochs",
    "2",
    "--limit",
    "96",
    *_EVERY,
)
TOGETHER_STEPS = 12
WHEN = ("before", "after")


def killed(bench, tries):
    """`kill -9` in the middle of an epoch, before or after a step's checkpoint."""
    trials = []
    for number in range(tries):
        which = number % len(RUNS)
        run = bench.new(RUNS[which])
        step = bench.random.randrange(1, STEPS[which])
        code = run.finish(functools.partial(kill_within_epoch, step, bench.random.choice(WHEN)))
        if code != -signal.SIGKILL:
            trials.append(Trial(lost=f"the run ended with {code} before step {step}"))
            continue
        trials.append(bench.resume(run, before=run.epochs()))
    return trials


def worker_killed(bench, tries):
    """`kill -9` of one of two workers in the middle of an epoch; then both start again."""
    trials, reference = [], _together(bench.new(TOGETHER))
    for number in range(tries):
        run, rank = bench.new(TOGETHER), number % 2  # rank 0 is the chief
        step = bench.random.randrange(1, TOGETHER_STEPS)
        kill = functools.partial(kill_within_epoch, step, bench.random.choice(WHEN))
        codes = _finish_together(run, {rank: kill})
        if codes[rank] != -signal.SIGKILL or codes[1 - rank] == 0:
            trials.append(Trial(lost=f"the workers ended with {codes} at step {step}"))
            continue
        before = run.epochs()
        equal = _together(run) == reference and run.epochs() >= before
        trials.append(Trial(equal=equal, lost=None if equal else "other weights or another log"))
    return trials


def _together(run):
    """Trains a run with two workers to the end; its result."""
    codes = _finish_together(run)
    if any(codes):
        said = [run.rank(("",), rank).said()[-3:] for rank in (0, 1)]
        raise RuntimeError(f"the workers ended with {codes}: {said}")
    return run.result()


def _finish_together(run, prepare=None):
    """The exit codes of two workers; `prepare` maps ranks to what runs in them first."""
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    children = [run.rank(hosts, rank).start((prepare or {}).get(rank)) for rank in (0, 1)]
    return [wait(child) for child in children]
