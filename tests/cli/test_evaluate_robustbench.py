"""`soar-tf evaluate --format robustbench`."""

import json

from click.testing import CliRunner

from soar_tf.cli.main import main


def test_the_entry_is_the_reports(tiny_run, tmp_path, run_cli):
    arguments = ("evaluate", tiny_run, "--attack", "autoattack", "--epsilon", "0.15", "--limit", 8)
    result = run_cli(*arguments, "--format", "robustbench", "--output", tmp_path / "out")
    entry, report = (
        json.loads(result.stdout),
        json.loads((tmp_path / "out/report.json").read_text()),
    )
    assert json.loads((tmp_path / "out" / "robustbench.json").read_text()) == entry
    assert entry["clean_acc"] == f"{100 * report['clean_accuracy']:.2f}"
    assert entry["autoattack_acc"] == f"{100 * report['attacks'][0]['robust_accuracy']:.2f}"
    assert (entry["eps"], entry["dataset"], entry["architecture"]) == ("0.15", "digits", "mlp")
    assert entry["unreliable"] is False and "8 images of the test split" in entry["footnote"]
    run_cli(*arguments, "--format", "robustbench", "--output", tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text()) == entry


def test_it_is_about_autoattack(tiny_run, run_cli):
    result = run_cli("evaluate", tiny_run, "--format", "robustbench", expect=2)
    assert "needs --attack autoattack once. Received: fgsm, pgd20" in result.stderr


def test_one_output_has_one_form(tiny_run):
    both = ["evaluate", str(tiny_run), "--format", "robustbench", "--json"]
    refused = CliRunner().invoke(main, both)
    assert refused.exit_code == 2 and "two forms of one output" in refused.stderr
