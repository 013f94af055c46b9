"""Writes tests/slow_tests.txt, the tests that `make test` leaves out, from measured durations.

    python -m pytest --durations=0 --durations-min=0.1 > LOG
    python tools/slow_tests.py LOG

A test is slow if its call takes longer than LIMIT seconds. A file is slow as a whole if preparing
its fixtures takes longer than FIXTURES seconds, which whichever test comes first would have to do.
What must be seen before each merge stays in `make test`, however long it takes: see KEPT.
"""

import collections
import re
import sys
from pathlib import Path

LIMIT, FIXTURES = 3, 60
KEPT = (
    "tests/attacks/test_autoattack_outcomes.py",
    "tests/bad_input/test_bad_input.py",
    "tests/cli/test_train.py::test_an_interrupted_run_ends_with_the_same_bits[soar]",
    "tests/evaluation/test_state.py",
    "tests/models/test_zoo_entries.py",
    "tests/runs/test_resume.py::test_coupled_weight_decay_resumes_with_the_same_bits[sgd]",
    "tests/test_architecture.py",
    "tests/test_imports.py",
    "tests/test_site.py",
    "tests/training/test_replicas.py::test_coupled_weight_decay_counts_once",
    "tests/training/test_robust_model.py::test_the_same_seed_gives_the_same_bits_and_another_one_"
    "does_not",
)
LIST = Path(__file__).parents[1] / "tests" / "slow_tests.txt"


def main():
    """Reads the log that the command line names, and writes the list."""
    duration = re.compile(r"^([0-9.]+)s (call|setup) +(tests/.+)$")
    calls, fixtures = {}, collections.Counter()
    for line in Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace").splitlines():
        if (match := duration.match(line.strip())) is None:
            continue
        seconds, stage, test = float(match[1]), match[2], match[3]
        if stage == "call":
            calls[test] = seconds
        elif seconds > LIMIT:
            fixtures[test.partition("::")[0]] += seconds
    whole = {file for file, seconds in fixtures.items() if seconds > FIXTURES} - set(KEPT)
    single = {
        test
        for test, seconds in calls.items()
        if seconds > LIMIT and not {test, test.partition("::")[0]} & {*KEPT, *whole}
    }
    head = "# Made by tools/slow_tests.py; do not edit.\n"
    LIST.write_text(head + "".join(f"{name}\n" for name in sorted(whole | single)))


if __name__ == "__main__":
    main()
