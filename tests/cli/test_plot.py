"""`soar-tf plot`: what it draws from runs and reports, and what it refuses."""

import json
import shutil
import sys

import numpy as np
import pytest

REPORT = {"n": 40, "worst_case_accuracy": 0.5, "attacks": []}
CURVE = {"epsilons": [0, 0.1], "accuracy": [0.9, 0.5], "norm": "linf", "attack": "pgd20"}
TRANSFER = {
    "n": 10,
    "attack": "fgsm",
    "sources": ["a"],
    "targets": ["b"],
    "clean_accuracy": {"b": 0.9},
    "white_box": {"b": 0.2},
    "accuracy": {"a": {"b": 0.4}},
}


@pytest.fixture
def reports(tmp_path):
    """A report's folder with images, and a transfer.json."""
    folder = tmp_path / "rep"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({**REPORT, "curve": CURVE}))
    x = np.zeros((3, 4, 4, 1), "float32")
    np.savez(
        folder / "adversarial.npz",
        x=x,
        x_adv=x + 0.1,
        label=np.arange(3),
        adversarial_prediction=np.ones(3, int),
    )
    (tmp_path / "transfer.json").write_text(json.dumps(TRANSFER))
    return folder, tmp_path / "transfer.json"


def test_everything_that_the_sources_hold_is_drawn(tiny_run, reports, tmp_path, run_cli):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tiny_run / "log.csv", other)
    out = tmp_path / "pictures" / "new"
    result = run_cli("plot", tiny_run, other, *reports, "--output", out)
    names = {path.name for path in out.iterdir()}
    assert {"training-curves.png", "accuracy-epsilon.png", "adversarial-examples-rep.png"} < names
    assert len(names) == 4 and any(name.startswith("transfer-") for name in names)
    assert set(result.stdout.split()) == {str(path) for path in out.iterdir()}
    for path in out.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_loss_around_images(tiny_run, tmp_path, run_cli):
    run_cli("plot", tiny_run, "--loss-surface", "2", "--output", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "training-curves.png",
        "loss-direction.png",
        f"loss-surface-{tiny_run.name}.png",
    }


def test_one_bad_directory_does_not_keep_the_others_from_being_drawn(reports, tmp_path, run_cli):
    _, transfer = reports
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    result = run_cli("plot", tmp_path / "empty", transfer, "--output", out, expect=1)
    assert f"{tmp_path / 'empty'} holds none of log.csv, report.json" in result.stderr
    assert "Failed: 1 of 2 runs could not be drawn." in result.stderr
    assert set(result.stdout.split()) == {str(path) for path in out.iterdir()} != set()


def test_refusals_write_nothing(reports, tmp_path, run_cli, monkeypatch):
    out = tmp_path / "out"
    folder, transfer = reports

    def check(sentence, *arguments):
        result = run_cli("plot", *arguments, "--output", out, expect=2)
        assert sentence in result.stderr and not out.exists()

    (tmp_path / "empty").mkdir()
    for name, text in (
        ("bare.json", json.dumps(REPORT)),
        ("list.json", "[1]"),
        ("cut.json", "{"),
        ("text.csv", "a,b\n1,2\n"),
    ):
        (tmp_path / name).write_text(text)
    check("does not exist", tmp_path / "none")
    check("holds none of log.csv, report.json, transfer.json", tmp_path / "empty")
    check("holds no curve and no adversarial images", tmp_path / "bare.json")
    check("must hold a JSON object", tmp_path / "list.json")
    check("is not valid JSON", tmp_path / "cut.json")
    check("has no column loss", tmp_path / "text.csv")
    check("--epsilon needs --loss-surface", transfer, "--epsilon", "0.1")
    check("needs a finished run directory", transfer, "--loss-surface", "2")
    (folder / "adversarial.npz").write_bytes(b"PK")
    check("cannot be read as adversarial examples", folder)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    check("pip install 'soar-tf[plots]'", transfer)
