"""The fault table: every kind of fault, how often it was tried, and what came of it.

    python -m benchmarks.faults --output docs/results/faults.json

Each try trains a tiny network in a process of its own, hits it, repeats the command and compares
the weights and the log, bit by bit, with those of an uninterrupted run. Two kinds need to mount a
small file system, and are left out where that is not allowed. Takes about 20 minutes on two cores;
`--quick` tries each kind once or not at all. A table that exists is completed.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile


def main():
    """Reads the command line, tries the faults and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="JSON file; default: stdout")
    parser.add_argument("--quick", action="store_true", help="a handful of tries")
    parser.add_argument("--only", nargs="+", default=None, help="kinds whose name holds a word")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    arguments = parser.parse_args()

    from soar_tf.cli.startup import load_tensorflow

    load_tensorflow()
    import soar_tf.runs.experiment  # noqa: F401 (children must find it imported)
    from benchmarks.faults.kinds import KINDS, Bench

    folder = pathlib.Path(tempfile.mkdtemp(prefix="soar-tf-faults-"))
    bench, table = Bench(folder, arguments.seed), _read(arguments.output)
    mounts = _may_mount(folder)
    for kind, function, full, quick, needs_mount in KINDS:
        tries = 0 if needs_mount and not mounts else quick if arguments.quick else full
        wanted = not arguments.only or any(word in kind for word in arguments.only)
        if not wanted or not tries or kind in [row["kind"] for row in table["faults"]]:
            continue
        table["faults"].append(_row(kind, arguments.seed, function(bench, tries)))
        print(table["faults"][-1], file=sys.stderr, flush=True)
        if arguments.output is not None:  # the next call goes on here
            arguments.output.write_text(json.dumps(table, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    from soar_tf.runs.provenance import environment

    names = [kind for kind, *_ in KINDS]
    table["faults"].sort(key=lambda row: names.index(row["kind"]))
    table["environment"] = environment()
    text = json.dumps(table, indent=2) + "\n"
    if arguments.output is None:
        print(text, end="")
    else:
        arguments.output.write_text(text)
    sys.exit(any(row["lost"] for row in table["faults"]))


def _row(kind, seed, trials):
    for trial in trials:
        if trial.lost is not None:
            print(f"  lost: {trial.lost}", file=sys.stderr, flush=True)
    return {
        "kind": kind,
        "seed": seed,
        "tried": len(trials),
        "refused": sum(trial.refused for trial in trials),
        "resumed_equal": sum(trial.equal for trial in trials),
        "lost": sum(trial.lost is not None for trial in trials),
    }


def _read(output):
    """The table so far."""
    if output is None or not output.is_file():
        return {"faults": []}
    return {"faults": json.loads(output.read_text())["faults"]}


def _may_mount(folder):
    """Whether this process may mount a small file system."""
    place = folder / "mount"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        return False
    subprocess.run(["umount", str(place)], check=True)
    return True


main()
