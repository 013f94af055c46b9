"""`soar-tf evaluate --corruptions`: in the text, the pages and the JSON report."""

import json

import pytest

from soar_tf import corruptions


def test_the_section_is_everywhere(tiny_run, tmp_path, run_cli):
    output = tmp_path / "report"
    arguments = (
        "evaluate",
        tiny_run,
        "--attack",
        "fgsm",
        "--limit",
        "30",
        "--corruptions",
        "--output",
        output,
    )
    text = run_cli(*arguments).stdout
    report = json.loads((output / "report.json").read_text())
    found = report["corruptions"]
    names = corruptions.names_for((8, 8, 1))
    assert tuple(found["accuracy"]) == names and len(names) == 11
    every = [share for shares in found["accuracy"].values() for share in shares]
    assert len(every) == 55 and found["mean"] == pytest.approx(sum(every) / 55)
    page = (output / "report.md").read_text()
    for shown in (text, page, (output / "report.html").read_text()):
        assert f"{100 * found['mean']:.1f} %" in shown and "defocus-blur" in shown
        assert "Computed here" in shown and "not the images of CIFAR-10-C" in shown
    row = next(line for line in page.splitlines() if line.startswith("| jpeg |"))
    assert row.count("%") == 5
    assert "\n| **mean** |" in page and "\n\n## Where it comes from" in page
    again = run_cli(*arguments)
    assert "complete already" in again.stderr
    assert json.loads((output / "report.json").read_text())["corruptions"] == found
