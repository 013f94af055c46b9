"""`soar-tf evaluate --masking`."""

import json

import keras
import pytest

BASE = ("--dataset", "digits", "--attack", "fgsm", "--limit", "30")


@pytest.fixture
def masking_network(tiny_run, tmp_path):
    """The tiny run's network with logits so large that its loss is flat."""
    network = keras.saving.load_model(tiny_run / "model.keras")
    outputs = keras.layers.Rescaling(1e5)(network.output)
    keras.Model(network.input, outputs).save(tmp_path / "masking.keras")
    return tmp_path / "masking.keras"


def test_the_checks_stand_in_the_report_and_below_the_table(tiny_run, tmp_path, run_cli):
    result = run_cli(
        "evaluate",
        tiny_run,
        *BASE,
        "--masking",
        "--masking-source",
        tiny_run / "standard.keras",
        "--output",
        tmp_path / "report.json",
    )
    masking = json.loads((tmp_path / "report.json").read_text())["masking"]
    names = [check["name"] for check in masking["checks"]]
    assert len(names) == 11 and "transfer" in names
    order = ["pass", "warn", "fail"]
    assert masking["verdict"] == max((c["verdict"] for c in masking["checks"]), key=order.index)
    assert masking["epsilon"] == 0.15 and masking["n"] == 30
    assert masking["verdict"] != "fail" and "unreliable" not in result.stdout
    for check in masking["checks"]:
        line = next(line for line in result.stdout.splitlines() if line.startswith(check["name"]))
        assert check["verdict"] in line and check["sentence"] in line
    assert f"Gradient masking: {masking['verdict']}." in result.stdout


def test_a_report_that_fails_says_unreliable(masking_network, tmp_path, run_cli):
    arguments = ("evaluate", masking_network, *BASE, "--masking", "--output", tmp_path / "out")
    result = run_cli(*arguments)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["reliability"] == "unreliable"
    headline = f"{100 * report['worst_case_accuracy']:.1f} %"
    assert "worst case (unreliable)" in result.stdout
    markdown, page = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert f"**{headline} robust accuracy** (**UNRELIABLE**)" in markdown
    assert f'<strong>{headline}</strong><span class="badge">unreliable</span>' in page
    again = run_cli(*arguments, "--json")  # the finished checks are not run again
    assert "complete already" in again.stderr and again.json["masking"] == report["masking"]
    assert report["masking"]["verdict"] == "fail"
    indicators = report["masking"]["indicators"]
    assert indicators["attack"] == "PGD-20" and len(indicators["indicators"]) == 5
    assert indicators["indicators"][0]["name"] == "zero_gradient"
    assert len(indicators["indicators"][0]["images"]) == indicators["failed"] > 0
    for entry in indicators["indicators"]:
        for shown in (result.stdout, markdown, page):
            assert entry["sentence"] in shown
    assert report["note"].startswith("The figures are unreliable") and "gradients" in report["note"]
    assert "transfer" not in [check["name"] for check in report["masking"]["checks"]]


def test_a_failing_check_leads_to_a_short_adaptive_attack(tiny_run, tmp_path, run_cli, monkeypatch):
    from soar_tf.reports import masking

    arguments = ("evaluate", tiny_run, *BASE, "--masking", "--output", tmp_path / "out", "--json")
    first = run_cli(*arguments).json
    assert [attack["name"] for attack in first["attacks"]] == ["fgsm"]
    monkeypatch.setattr(masking, "failed", lambda report: ["black_box"])
    report = run_cli(*arguments).json  # the finished attack and checks are not run again
    assert [attack["name"] for attack in report["attacks"]] == ["fgsm", "adaptive"]
    assert report["attacks"][0] == first["attacks"][0]
    assert report["masking"]["checks"] == first["masking"]["checks"]
    assert report["worst_case_accuracy"] <= first["worst_case_accuracy"]
    assert report["reliability"] == "unreliable"


def test_without_the_flag_there_is_no_section(tiny_run, run_cli):
    assert "masking" not in run_cli("evaluate", tiny_run, *BASE, "--json").json


def test_refusals(tiny_run, tmp_path, run_cli):
    result = run_cli("evaluate", tiny_run, *BASE, "--masking-source", tiny_run, expect=2)
    assert "--masking-source needs --masking." in result.stderr
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(12)]
    )
    network.save(tmp_path / "more.keras")
    report = tmp_path / "report.json"
    for source, sentence in ((tmp_path / "more.keras", "12"), (tmp_path / "none", "not exist")):
        result = run_cli(
            "evaluate",
            tiny_run,
            *BASE,
            "--masking",
            "--masking-source",
            source,
            "--output",
            report,
            expect=2,
        )
        assert sentence in result.stderr and result.stdout == "" and not report.exists()
