"""Faults that hit real processes: `python -m benchmarks.faults`, and the table that it made."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def tried(tmp_path, *arguments):
    """The rows of a new table, by kind."""
    command = [sys.executable, "-m", "benchmarks.faults", "--output", str(tmp_path / "table.json")]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "table.json").read_text())["faults"]
    assert all(row["lost"] == 0 for row in rows)
    return {row["kind"]: row for row in rows}


def test_a_handful_of_faults(tmp_path):
    rows = tried(tmp_path, "--quick", "--only", "rename", "Ctrl-C")
    killed = rows["kill -9 at a sync or rename"]
    assert killed["resumed_equal"] == killed["tried"] == 1
    assert rows["Ctrl-C"]["refused"] == rows["Ctrl-C"]["resumed_equal"] == 1


@pytest.mark.slow
def test_every_fault(tmp_path):
    rows = tried(tmp_path)
    killed = rows["kill -9 at a random moment"]
    assert killed["tried"] >= 50 and killed["resumed_equal"] == killed["tried"]
    assert_kills_within_epochs(rows)


def assert_kills_within_epochs(rows):
    within = [row for kind, row in rows.items() if kind.endswith("within an epoch")]
    assert len(within) == 2 and sum(row["tried"] for row in within) >= 20
    assert all(row["resumed_equal"] == row["tried"] for row in within)


def test_the_committed_table_has_lost_nothing_and_is_in_the_docs():
    table = json.loads((ROOT / "docs" / "results" / "faults.json").read_text())
    page = (ROOT / "docs" / "reliability.md").read_text()
    kinds = {row["kind"]: row for row in table["faults"]}
    for kind, row in kinds.items():
        assert row["lost"] == 0 and row["tried"] > 0
        cells = [kind, *(row[name] for name in ("tried", "refused", "resumed_equal", "lost"))]
        assert "| " + " | ".join(str(cell) for cell in cells) + " |" in page
    kills = [row for kind, row in kinds.items() if kind.startswith("kill")]
    assert sum(row["tried"] for row in kills) >= 50
    assert all(row["resumed_equal"] == row["tried"] for row in kills)
    assert_kills_within_epochs(kinds)
