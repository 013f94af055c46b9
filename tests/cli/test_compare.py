"""`soar-tf compare`: the numbers, the files, and what is refused."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def reports(tiny_run, tmp_path_factory):
    """Folders: the trained network, the standard one, and others that do not fit them."""
    from click.testing import CliRunner

    from soar_tf.cli.main import main

    root = tmp_path_factory.mktemp("compare")
    base = ("--dataset", "digits", "--attack", "fgsm", "--batch-size", "50", "--verbose", "0")
    for name, model, arguments in (
        ("soar", tiny_run / "model.keras", ("--limit", "50", "--epsilon", "0.1")),
        ("standard", tiny_run / "standard.keras", ("--limit", "50", "--epsilon", "0.1")),
        ("wider", tiny_run / "model.keras", ("--limit", "50", "--epsilon", "0.15")),
        ("fewer", tiny_run / "model.keras", ("--limit", "40", "--epsilon", "0.1")),
        ("bim", tiny_run / "model.keras", ("--limit", "50", "--epsilon", "0.1", "--attack", "bim")),
    ):
        words = ["evaluate", model, *base, *arguments, "--output", root / name]
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, (result.output, result.exception)
    return root


def test_the_table_and_the_files_agree(reports, tmp_path, run_cli):
    arguments = ("compare", reports / "soar", reports / "standard" / "report.json")
    text = run_cli(*arguments, "--output", tmp_path / "out").stdout
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert found == run_cli(*arguments, "--json").json
    robust = []
    for name in ("soar", "standard"):
        with np.load(reports / name / "examples.npz") as table:
            robust.append(table["broken_by"] == "")
    assert found["accuracy"] == [float(one.mean()) for one in robust]
    assert found["only_first"] == np.flatnonzero(robust[0] & ~robust[1]).tolist()
    assert found["only_second"] == np.flatnonzero(robust[1] & ~robust[0]).tolist()
    page = (tmp_path / "out/comparison.md").read_text()
    difference = f"{100 * found['difference']:+.1f} points"
    for shown in (text, page):
        assert difference in shown and found["note"] in shown and "Linf 0.1" in shown
        assert f"p = {found['p_value']:.2g}" in shown
    assert "50 images leave an interval of" in found["note"]


def test_a_network_compared_with_itself(reports, run_cli):
    found = run_cli("compare", reports / "soar", reports / "soar", "--json").json
    assert found["difference"] == 0 and found["p_value"] == 1 and found["only_first"] == []
    assert "Chance explains the difference" in found["note"]


def test_other_attacks_are_mentioned(reports, run_cli):
    found = run_cli("compare", reports / "soar", reports / "bim", "--json").json
    assert "The attacks differ (fgsm and fgsm, bim)" in found["note"]


def test_reports_that_do_not_fit_are_refused(reports, tmp_path, run_cli):
    def check(sentence, *folders):
        result = run_cli("compare", *folders, "--output", tmp_path / "out", expect=2)
        assert sentence in result.stderr and not (tmp_path / "out").exists()

    first = reports / "soar"
    check(
        f"`report` {reports / 'wider'} cannot be compared with {first}: the threat models differ "
        "(Linf 0.1 and Linf 0.15)",
        first,
        reports / "wider",
    )
    check("the images differ", first, reports / "fewer")
    check("must be a folder with report.json and examples.npz", first, tmp_path / "none")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "report.json").write_text((first / "report.json").read_text())
    check("must be a folder with report.json and examples.npz", first, broken)
    (broken / "examples.npz").write_bytes(b"PK")
    check("cannot be read as a report of soar-tf evaluate", first, broken)
    (broken / "examples.npz").write_bytes((first / "examples.npz").read_bytes())
    (broken / "report.json").write_text('{"n": 3}')
    check("cannot be read as a report of soar-tf evaluate", first, broken)


def test_few_images_are_warned_of(reports):
    report = json.loads((reports / "soar" / "report.json").read_text())
    low, high = report["worst_case_interval"]
    warning = f"50 images leave a wide interval, {100 * (high - low):.0f} points"
    for name in ("report.json", "report.md", "report.html"):
        assert warning in (reports / "soar" / name).read_text()
