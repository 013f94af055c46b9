"""docs/theory.md: the functions that it names exist, the figures are the result files'."""

import importlib
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "theory.md").read_text(encoding="utf-8")


def _resolve(name):
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[count:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_every_named_function_exists():
    rows = [line for line in TEXT.splitlines() if line.startswith("|")]
    names = re.findall(r"`(soar_tf\.[\w.]+)`", TEXT)
    assert len(set(re.findall(r"`(soar_tf\.[\w.]+)`", "\n".join(rows)))) >= 20
    for name in names:
        assert _resolve(name) is not None
    for equation in ("2", "4", "5", "6, 7", "8", "9", "10", "11", "12"):
        assert any(row.startswith(f"| {equation} |") for row in rows), equation


PLACES = {"theory": 6, "method_study": 6, "reproduction": 26, "guides/ship": 2}


@pytest.mark.parametrize(("name", "places"), PLACES.items())
def test_tables_and_findings_are_those_of_the_result_files(name, places):
    sys.path.insert(0, str(DOCS))
    try:
        fill = importlib.import_module("fill")
    finally:
        sys.path.remove(str(DOCS))
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert fill.filled(text) == text, "run: python docs/fill.py"
    assert text.count("<!-- begin") == text.count("<!-- end -->") >= places


def test_the_remark_on_the_border_of_h():
    for count, epsilon, factor in ((9, 0.15, "5.9"), (3 * 32 * 32, 8 / 255, "1.33")):
        square = count * epsilon**2
        assert f"{(square + 1) / square:.{len(factor) - 2}f}" == factor and factor in TEXT
