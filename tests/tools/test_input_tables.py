"""The tables of `benchmarks.input` and the documents that they fill."""

import pytest

from benchmarks import input_tables


def figures():
    """As `benchmarks.input` writes them, with made-up numbers."""

    def memory(mib):
        return {"peak_mib": 400 + mib, "peak_above_import_mib": mib}

    folder = {
        "bytes": 7_900_000,
        "input": {"start_seconds": 9.6, "peak_above_import_mib": 105.2},
        "train": memory(300),
        "evaluate": memory(250),
    }
    rates = {"memory": 9000.0, "folder": 4321.5, "keras": 2160.75, "tf.data": 4500.0}
    shares = {"waiting": 0.0123, "slower_than_fixed": 0.2, "steps": 5, "step_seconds": 1.0}
    return {
        "command": "python -m benchmarks.input",
        "machine": {"cores": 2, "processor": "P", "load": 0.1, "versions": {"keras": "3"}},
        "batch_size": 64,
        "note": "The cores were shared.",
        "speed": {
            "32": {
                name: {"images_per_second": rate, "cpu_microseconds": 1e5 / rate}
                for name, rate in rates.items()
            }
        },
        "waiting": {"32": {"folder": shares, "keras": shares}},
        "memory": {
            "side": 160,
            "digits": {"train": memory(100), "evaluate": memory(60)},
            "folders": {"1000": folder, "100000": folder},
        },
    }


def test_the_tables():
    made = input_tables.table(figures())
    assert "| folder | 4,322 (23 µs) |" in made and "| keras | 2,161 (46 µs) |" in made
    assert "| folder | 1.2 % (+20.0 %) |" in made
    assert "| 100,000 | 8 MB | 105 MiB | 300 MiB | 250 MiB | 10 s |" in made
    assert "| digits, in memory |  |  | 100 MiB | 60 MiB |  |" in made


def test_the_targets():
    found = {name: (limit, value) for name, limit, value in input_tables.targets(figures())}
    assert found["input of Keras's loader over ours, images/s, 32 pixels"] == (1, 0.5)
    assert found["input, processor time over Keras's loader, 32 pixels"] == (1, 0.5)
    assert found["waiting, per cent of a step at 32 pixels, folder"] == (5, pytest.approx(1.23))
    assert found["MiB above digits, train, 100,000 files"] == (1024, 200)
    assert not any("keras" in name for name in found if name.startswith("waiting"))


def test_places_are_filled_and_emptied():
    empty = "A\n\n<!-- input: sizing -->\n<!-- end of input -->\n\nB\n"
    without = input_tables.filled(empty, None)
    assert input_tables.MISSING in without and without.endswith("\n\nB\n")
    full = input_tables.filled(without, figures())
    assert input_tables.sizing(figures()) in full and "on 2 cores (P)" in full
    assert "keras 3. The cores were shared.\n" in full
    assert input_tables.MISSING not in full
    assert input_tables.filled(full, figures()) == full
    assert input_tables.filled(full, None) == without


def test_nobody_edited_the_documents_by_hand():
    places = 0
    for path in input_tables.DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        filled = input_tables.filled(text, input_tables.committed())
        assert filled == text, "run: python -m benchmarks.report"
        places += text.count("<!-- input: ")
    assert places == 3
