"""The documentation site builds without a warning and needs no network; the notebooks run."""

import html
import json
import os
import re
import shutil
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
    for entry in ("guides/own_model.html", "guides/measure.html", "reproduction.html"):
        assert f'href="{entry}"' in home
    overview = (site / "overview.html").read_text()
    assert 'href="guides/own_model.html"' in overview  # a link out of README.md


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]* href="([^"]+)"[^>]* rel="stylesheet"', text)
        assert [path for path in loaded if re.match("(?:https?:)?//", path)] == [], page
        for path in loaded:
            if not path.startswith("data:") and page.name != "404.html":
                assert (page.parent / path.partition("?")[0]).is_file(), (page, path)


def formulas(site):
    """The TeX of every formula on the site's pages, without its delimiters."""
    found = set()
    for page in site.rglob("*.html"):
        texts = re.findall(r'class="arithmatex">(.*?)</(?:span|div)>', page.read_text(), re.S)
        found |= {html.unescape(text).strip()[2:-2] for text in texts}
    return sorted(found)


def test_katex_can_set_every_formula_with_the_fonts_that_are_shipped(site):
    found = formulas(site)
    assert len(found) > 100 and all("\\(" not in formula for formula in found)
    # Letters whose fonts are left out of docs/assets/katex.
    left_out = r"\\(math|text)(frak|scr|sf)|\\boldsymbol\{?\\mathcal"
    assert not [formula for formula in found if re.search(left_out, formula)]
    if shutil.which("node") is None:
        pytest.skip("needs node to run KaTeX")
    program = """
        const katex = require(process.argv[1]);
        const found = JSON.parse(require("fs").readFileSync(0, "utf8"));
        for (const tex of found) katex.renderToString(tex, { throwOnError: true });
    """
    result = subprocess.run(
        ["node", "-e", program, str(ROOT / "docs/assets/katex/katex.min.js")],
        input=json.dumps(found),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


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
