"""The documents' snippets run, and their tables are those of the committed result files."""

import importlib
import json
import re
import tomllib

import pytest
import snippets
from snippets import DOCUMENTS, ROOT

from soar_tf import attacks
from soar_tf.cli.main import main
from soar_tf.cli.train import summary_table
from soar_tf.models import zoo
from soar_tf.reports.opening import opening

WITH_PYTHON = [name for name in DOCUMENTS if snippets.snippets(name, ["python"])]
WITH_COMMANDS = [name for name in DOCUMENTS if snippets.commands(name)]


def _skip_without_runtimes(name):
    if any(code in (ROOT / name).read_text() for code in ('"litert"', "int8")):
        pytest.importorskip("ai_edge_litert")
    if "digits.onnx" in (ROOT / name).read_text():
        pytest.importorskip("tf2onnx")


def _marked(names, slow):
    return [pytest.param(name, marks=pytest.mark.slow) if slow(name) else name for name in names]


# Networks of keras.applications take long to trace.
SLOW = {"docs/guides/own_model.md", "docs/guides/fine_tune.md"}


@pytest.mark.parametrize("name", _marked(WITH_PYTHON, SLOW.__contains__))
def test_python_snippets_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _skip_without_runtimes(name)
    for snippet in snippets.snippets(name, ["python"]):
        exec(compile(snippet, name, "exec"), {"__name__": "snippet"})


# On a few images, but with the documents' own methods and attacks.
@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_run(name, tmp_path, monkeypatch, run_cli, tiny_run):
    monkeypatch.chdir(tmp_path)
    _skip_without_runtimes(name)
    commands = snippets.commands(name)
    if any({"cifar10", "--data-dir"} & set(command) for command in commands):
        snippets.write_cifar10(tmp_path / "tfds")
    for command in commands:
        words = snippets.small(command)
        if "--data-dir" in words:
            words[words.index("--data-dir") + 1] = str(tmp_path / "tfds")
        snippets.presupposed(words, tmp_path, tiny_run)
        run_cli(*words)


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_every_command_in_the_documents_exists(name):
    for command, *rest in snippets.commands(name):
        if command.startswith("-"):
            continue
        parameters = main.commands[command].params
        options = {option for p in parameters for option in [*p.opts, *p.secondary_opts]}
        assert {word for word in rest if word.startswith("--")} <= options | {"--help"}


def test_make_targets_and_extras_in_the_documents_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = set()
    for name in DOCUMENTS:
        text = "".join(snippets.snippets(name, snippets.SHELLS))
        found |= set(re.findall(r"^make ([\w-]+)", text, re.M))
        extras = re.findall(r"(?:soar-tf|\.)\[([\w,]+)\]", (ROOT / name).read_text())
        assert {e for group in extras for e in group.split(",")} <= set(
            project["optional-dependencies"]
        )
    assert {"train", "test"} <= found <= targets


@pytest.mark.parametrize("result", ["digits", "digits-adversarial", "first-cifar10"])
def test_the_readmes_tables_are_the_result_files(result):
    stored = _result(result)
    block = f"<!-- results/{result}.json -->\n\n```text\n{summary_table(stored)}\n```\n"
    assert block in (ROOT / "README.md").read_text()


def test_the_guides_quote_the_result_files():
    shares = {
        (name, column): f"{100 * _result(name)['rows'][-1][column]:.1f} %"
        for name in ("digits", "digits-adversarial")
        for column in ("pgd20", "autoattack")
    }
    choose = " ".join((ROOT / "docs/guides/choose_method.md").read_text().split())
    for name, holder in (("digits", "SOAR has"), ("digits-adversarial", "training")):
        pgd, autoattack = shares[name, "pgd20"], shares[name, "autoattack"]
        assert re.search(f"{holder} {pgd} (under PGD-20 )?and {autoattack}", choose)
    measure = (ROOT / "docs/guides/measure.md").read_text()
    assert shares["digits", "pgd20"] in measure and shares["digits", "autoattack"] in measure


def test_the_landing_page_and_the_guide_to_reports_quote_the_result_files():
    soar, adversarial = (_result(name)["rows"][-1] for name in ("digits", "digits-adversarial"))
    stored = _result("digits-masking")
    checks = {check["name"]: check["figure"] for check in stored["masking"]["checks"]}
    quoted = [soar["pgd20"], soar["autoattack"], checks["more_restarts"]]
    for name, figures in (
        ("index.md", [*quoted, adversarial["autoattack"]]),
        ("guides/read_report.md", quoted),
    ):
        text = (ROOT / "docs" / name).read_text()
        assert all(f"{100 * figure:.1f} %" in text for figure in figures)
    # The stored report is older than the word: `note` has said it from the beginning.
    stored |= {"reliability": "unreliable"} if "unreliable" in stored["note"] else {}
    assert f"```text\n{opening(stored)['verdict']}\n```" in text


@pytest.mark.parametrize("package", ["foolbox", "art"])
def test_the_other_libraries_calls_exist(package):
    pytest.importorskip(package)
    text = (ROOT / "docs/guides/from_other_libraries.md").read_text()
    names = set(re.findall(rf"`({package}(?:\.\w+)+)", text))
    assert len(names) > 8
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_table_of_calls_names_attacks_that_exist():
    text = (ROOT / "docs/guides/from_other_libraries.md").read_text()
    rows = text.partition("| FGSM |")[2].partition("| adversarial images |")[0].splitlines()
    cells = [row.strip("| ").split(" | ")[-1] for row in rows if row]
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len({type(attacks.get(name)) for name in names}) == 12


def _result(name):
    return json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())


def test_the_presets_table_is_that_of_the_result_files():
    text = (ROOT / "docs" / "design.md").read_text()
    for name in ("standard", "per_example", "batch_mean"):
        report = _result(f"presets/{name}")
        figures = [report["clean_accuracy"], *(a["robust_accuracy"] for a in report["attacks"])]
        assert f"| {name} | " + " | ".join(f"{100 * f:.1f} %" for f in figures) + " |" in text


def test_the_method_studys_networks_are_the_zoos():
    text = (ROOT / "docs" / "method_study.md").read_text()
    for name in ("standard", "adv1", "adv7", "soar", "robust"):
        found = zoo.figures(zoo.card(f"cifar10-cnn4-{name}"))
        figures = [found[key] for key in ("clean", "pgd20", "autoattack")]
        (row,) = re.findall(rf"\| cifar10-cnn4-{name} \| .*", text)
        assert row.endswith("| " + " | ".join(f"{100 * f:.1f} %" for f in figures) + " |")


def test_the_documents_say_what_the_masking_reports_say():
    verdicts = {
        name: _result(f"{name}-masking")["masking"] for name in ("digits", "digits-adversarial")
    }
    assert verdicts["digits"]["verdict"] == "fail"
    assert verdicts["digits-adversarial"]["verdict"] != "fail"
    checks = {check["name"]: check for check in verdicts["digits"]["checks"]}
    assert checks["more_restarts"]["verdict"] == "fail"
    figure = f"{100 * checks['more_restarts']['figure']:.1f} %"
    assert figure == "9.8 %" and figure in (ROOT / "README.md").read_text()
    assert figure in (ROOT / "docs/guides/measure.md").read_text()
