"""The documents' Python runs, and their tables are those of the committed result files."""

import json
import re
from pathlib import Path

import pytest

from soar_tf.cli.train import summary_table

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/callbacks.md",
    "docs/evaluation.md",
    "docs/scale_out.md",
    "docs/theory.md",
]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_snippets_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.S)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, name, "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("result", ["digits", "digits-adversarial", "first-cifar10"])
def test_the_readmes_tables_are_the_result_files(result):
    stored = json.loads((ROOT / "docs" / "results" / f"{result}.json").read_text())
    block = f"<!-- results/{result}.json -->\n\n```\n{summary_table(stored)}\n```\n"
    assert block in (ROOT / "README.md").read_text()


def test_the_presets_table_is_that_of_the_result_files():
    text = (ROOT / "docs" / "design.md").read_text()
    for name in ("standard", "per_example", "batch_mean"):
        report = json.loads((ROOT / "docs" / "results" / "presets" / f"{name}.json").read_text())
        figures = [report["clean_accuracy"], *(a["robust_accuracy"] for a in report["attacks"])]
        assert f"| {name} | " + " | ".join(f"{100 * f:.1f} %" for f in figures) + " |" in text


def test_the_readme_says_what_the_masking_reports_say():
    verdicts = {}
    for name in ("digits", "digits-adversarial"):
        text = (ROOT / "docs" / "results" / f"{name}-masking.json").read_text()
        verdicts[name] = json.loads(text)["masking"]
    assert verdicts["digits"]["verdict"] == "fail"
    assert verdicts["digits-adversarial"]["verdict"] != "fail"
    checks = {check["name"]: check for check in verdicts["digits"]["checks"]}
    assert checks["more_restarts"]["verdict"] == "fail"
    figure = f"{100 * checks['more_restarts']['figure']:.1f} %"
    assert figure == "9.8 %" and figure in (ROOT / "README.md").read_text()


def test_every_command_in_the_readme_exists():
    from soar_tf.cli.main import main

    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^soar-tf (\w+)(.*)$", text, re.M)
    assert commands
    for command, rest in commands:
        options = {
            option for parameter in main.commands[command].params for option in parameter.opts
        }
        assert set(re.findall(r"--[\w-]+", rest)) <= options


def test_the_benchmarks_page_is_that_of_the_result_files(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import report

    assert report.PAGE.read_text() == report.page()
