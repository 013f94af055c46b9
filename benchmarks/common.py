"""What the benchmarks share: interleaved timing, peers in other Pythons, JSON, the machine."""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "benchmarks"


def parser(description, name):
    """An argument parser with what every benchmark takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--repeats", type=int, default=7, help="interleaved repeats, at least 5")
    made.add_argument("--json", default=str(RESULTS / f"{name}.json"), help="file for the figures")
    return made


class Stopwatch:
    """Wall and processor seconds since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self):
        """`{"wall": s, "cpu": s}`."""
        return {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


def timed(function):
    """Calls `function`; returns wall and processor seconds."""
    watch = Stopwatch()
    function()
    return watch.read()


def interleaved(functions, repeats, warm_up=True):
    """Medians of interleaved repeats, so that a slow minute hits everything alike.

    Args:
        functions: Mapping of names to callables that return `{"wall": s, "cpu": s}`.
        repeats: Rounds.
        warm_up: Whether one more goes before, for compilation.

    Returns:
        `{name: {"wall": median, "cpu": median, "wall_all": [...], "cpu_all": [...]}}`.
    """
    if warm_up:
        for function in functions.values():
            function()
    seen = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seen[name].append(function())
    return {
        name: {
            **{key: statistics.median(run[key] for run in runs) for key in ("wall", "cpu")},
            **{f"{key}_all": [run[key] for run in runs] for key in ("wall", "cpu")},
        }
        for name, runs in seen.items()
    }


class Peer:
    """A worker in another Python, which runs what it is told when it is told.

    Args:
        python: The interpreter.
        module: A module of `benchmarks` that calls `serve`.
        arguments: Its command line.
    """

    def __init__(self, python, module, *arguments):
        command = [python, "-m", f"benchmarks.{module}", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hello = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The peer stopped: {' '.join(self.process.args)}")
        return json.loads(line)

    def __call__(self, name):
        """Runs `name` once; returns what it reports."""
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return self._answer()

    def alone(self, name):
        """The same of a worker that stands still otherwise, so as not to work on others' time."""
        self.process.send_signal(signal.SIGCONT)
        answer = self(name)
        os.waitpid(self.process.pid, os.WUNTRACED)  # until it stands still
        return answer

    def close(self):
        """Ends the worker."""
        self.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()


def serve(functions, versions, stops=False):
    """The worker's side: `functions` by name, each called when its name comes in.

    With `stops` the process stands still after each answer, threads and all, see `Peer.alone`.
    """
    out, sys.stdout = sys.stdout, sys.stderr  # libraries print; the answers must stay alone
    print(json.dumps({"functions": sorted(functions), "versions": versions}), file=out, flush=True)
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(functions[line.strip()]()), file=out, flush=True)
        if stops:
            os.kill(os.getpid(), signal.SIGSTOP)


def versions(*packages):
    """The installed versions of packages."""
    from importlib import metadata

    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def machine():
    """What the figures depend on: processor, cores, load before the run, versions."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions("tensorflow", "keras", "numpy", "soar-tf"),
    }


def write(path, figures):
    """Writes the figures, with the command that made them."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks.{pathlib.Path(sys.argv[0]).stem}"
    figures = {"command": command, **figures}
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {path}", file=sys.stderr)


def milliseconds(seconds):
    """Seconds as milliseconds, for a table."""
    return f"{1e3 * seconds:.0f}"
