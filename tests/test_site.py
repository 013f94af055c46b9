"""The documentation site builds without a warning, and the notebooks run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs_jupyter", reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_site_builds_without_a_warning(site):
    home = (site / "index.html").read_text()
    assert 'src="pictures/accuracy.svg"' in home and (site / "pictures/accuracy.svg").is_file()
    assert 'href="guides/own_model.html"' in home  # a link out of README.md


def test_the_reference_holds_formulas_examples_and_every_command(site):
    methods = (site / "api/methods.html").read_text()
    assert r"\ell(x') + \lambda R(x')" in methods
    assert "&gt;&gt;&gt; " in methods and "<blockquote>" not in methods  # `>>>` is code
    text = (site / "command_line.html").read_text()
    from soar_tf.cli.main import main

    for name in main.commands:
        assert f"soar-tf {name}" in text


def test_the_picture_is_that_of_the_result_files(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    import picture

    assert picture.shares()["SOAR"] == pytest.approx([99.0, 81.5, 57.0, 43.25])
    drawn = (ROOT / "docs/pictures/accuracy.svg").read_text()
    for shares in picture.shares().values():
        for share in shares:
            assert f">{share:.1f}</text>" in drawn


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_with_small_outputs(path):
    nbformat = pytest.importorskip("nbformat")
    assert path.stat().st_size < 200_000
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    import notebooks

    ran = notebooks.executed(path, tmp_path)  # the cells' assertions hold
    assert any(cell.get("outputs") for cell in ran.cells)
