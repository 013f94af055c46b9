"""`soar-tf evaluate`, `export` and `list`."""

import json

import pytest


def test_the_report_has_the_promised_fields(tiny_run, tmp_path, run_cli):
    result = run_cli(
        "evaluate",
        tiny_run,
        "--attack",
        "fgsm",
        "--attack",
        "pgd7",
        "--attack",
        "pgd:steps=3,epsilon=4/255",
        "--limit",
        "50",
        "--seed",
        "5",
        "--output",
        tmp_path / "report.json",
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["n"], report["seed"], report["split"]) == (50, 5, "test")
    assert [a["name"] for a in report["attacks"]] == ["fgsm", "pgd7", "pgd:steps=3,epsilon=4/255"]
    for attack in report["attacks"]:
        assert 0 <= attack["robust_accuracy"] <= report["clean_accuracy"] <= 1
        assert attack["seconds"] > 0 and attack["images_per_second"] > 0
    worst = report["worst_case_accuracy"]
    assert worst <= min(attack["robust_accuracy"] for attack in report["attacks"])
    assert report["attacks"][0]["epsilon"] == 0.15  # the digits' own radius
    assert report["attacks"][2]["epsilon"] == pytest.approx(4 / 255)
    assert "4/255" in result.stdout and "worst case" in result.stdout


def test_all_three_kinds_of_model_give_the_same_figures(tiny_run, run_cli):
    figures = []
    for model in (tiny_run, tiny_run / "model.keras", tiny_run / "saved_model"):
        report = run_cli(
            "evaluate", model, "--dataset", "digits", "--attack", "pgd7", "--limit", "60", "--json"
        ).json
        figures.append((report["clean_accuracy"], report["attacks"][0]["robust_accuracy"]))
    assert figures[0] == figures[1] == figures[2]


def test_the_figures_do_not_depend_on_the_batch_size(tiny_run, run_cli):
    arguments = ["evaluate", tiny_run, "--attack", "pgd7", "--limit", "60", "--json"]
    first = run_cli(*arguments, "--batch-size", "60").json
    second = run_cli(*arguments, "--batch-size", "7").json
    for name in ("clean_accuracy", "worst_case_accuracy"):
        assert first[name] == second[name]


@pytest.mark.parametrize("kind", ["methods", "attacks", "datasets", "networks"])
def test_list_names_what_is_registered(kind, run_cli):
    entries = run_cli("list", kind, "--json").json
    expected = {
        "methods": "soar",
        "attacks": "l2pgd100",
        "datasets": "digits",
        "networks": "cnn4",
    }[kind]
    assert entries[expected]["summary"]
    assert expected in run_cli("list", kind).stdout
