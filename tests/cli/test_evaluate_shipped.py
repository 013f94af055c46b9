"""`soar-tf evaluate` and `transfer` on a LiteRT file."""

import json
import shutil

import pytest

ATTACKS = ("--attack", "fgsm", "--attack", "pgd3", "--attack", "square:queries=20", "--limit", "40")


@pytest.fixture(scope="module")
def shipped(tiny_run, tmp_path_factory):
    """An int8 file beside its run, and the run."""
    pytest.importorskip("ai_edge_litert")
    from click.testing import CliRunner

    from soar_tf.cli.main import main

    folder = tmp_path_factory.mktemp("shipped")
    shutil.copytree(tiny_run, folder / "net")
    arguments = ["export", folder / "net", folder / "net.tflite", "--quantize", "int8"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return folder / "net.tflite", folder / "net"


def test_the_report(shipped, tmp_path, run_cli):
    file, run = shipped
    result = run_cli("evaluate", file, *ATTACKS, "--epsilon", "0.15", "--output", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    part = report["shipped"]
    # The source is found beside the file, and its figures are its own evaluation's.
    alone = run_cli("evaluate", run, *ATTACKS, "--epsilon", "0.15", "--json").json
    assert part["source"] == str(run)
    assert part["source_clean_accuracy"] == alone["clean_accuracy"]
    assert part["source_worst_case_accuracy"] == alone["worst_case_accuracy"]
    assert part["source_accuracy"] == {
        entry["name"]: entry["robust_accuracy"] for entry in alone["attacks"]
    }
    assert report["worst_case_accuracy"] < part["naive_accuracy"] <= report["clean_accuracy"]
    assert (part["bytes"], "int8" in part["types"]) == (file.stat().st_size, True)
    names = ["agreement", "random search", "lead over the source", "missing gradients"]
    assert [check["name"] for check in part["checks"]] == names
    gap = part["naive_accuracy"] - report["worst_case_accuracy"]
    assert part["checks"][3]["figure"] == pytest.approx(gap)
    assert report["reliability"] == "no gradients"
    stages = [stage["name"] for stage in report["attacks"][1]["stages"]]
    assert stages == ["crafted", "straight-through"]
    share = f"{100 * part['naive_accuracy']:.1f} %"
    for text in ("report.md", "report.html"):
        page = (tmp_path / "out" / text).read_text()
        assert "Without gradients" in page and share in page and "No gradients exist" in page
    assert share in result.stdout and "No gradients exist" in result.stdout
    assert "--adaptive" not in result.stdout  # which is for models with gradients
    again = run_cli("evaluate", file, *ATTACKS, "--epsilon", "0.15", "--output", tmp_path / "out")
    assert "complete already" in again.stderr


def test_square_is_added_where_nothing_queries_the_file(shipped):
    import soar_tf
    from soar_tf.reports import shipped as section
    from soar_tf.runs import models
    from soar_tf.threat_model import ThreatModel

    source, threat = models.load(shipped[1]), ThreatModel("linf", 0.1)
    pgd = {"pgd3": soar_tf.attacks.get("pgd3")}
    assert list(section.attacks(pgd, source, threat)) == ["pgd3", "square"]
    full = {"autoattack": soar_tf.attacks.get("autoattack")}
    assert list(section.attacks(full, source, threat)) == ["autoattack"]


def test_refusals(shipped, tiny_run, tmp_path, run_cli):
    file, run = shipped
    alone = tmp_path / "alone.tflite"
    shutil.copy(file, alone)
    for arguments, message in (
        ((alone, "--dataset", "digits"), "`source` is needed"),
        ((file, "--source", file), "`source` must have gradients"),
        ((file, "--masking"), "`masking` is for models with gradients"),
        ((file, "--curve"), "`curve` is for models with gradients"),
        ((file, "--adaptive"), "`adaptive` is for models with gradients"),
        ((file, "--shard", "1/2", "--output", tmp_path / "out"), "`shard` is for models with"),
        ((run, "--source", run), "`source` needs `adaptive`, or a .tflite or .onnx file"),
    ):
        assert message in run_cli("evaluate", *arguments, expect=2).stderr
    arguments = ("transfer", "--source", file, "--target", run, "--output", tmp_path / "out")
    assert "Sources must have gradients" in run_cli(*arguments, expect=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["alone.tflite"]


def test_a_file_as_a_transfer_target(shipped, tmp_path, run_cli):
    file, run = shipped
    result = run_cli(
        "transfer",
        "--source",
        run,
        "--target",
        file,
        "--attack",
        "pgd3",
        "--limit",
        "20",
        "--epsilon",
        "0.15",
        "--output",
        tmp_path / "out",
    )
    report = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert report["white_box"] == {str(file): None}
    row = next(line for line in result.stdout.splitlines() if line.startswith(str(file)))
    assert row.split()[3] == "-"
