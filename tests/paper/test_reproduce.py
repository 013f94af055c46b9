"""`soar-tf reproduce`: entries end to end, in the smoke budget, on digits."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from soar_tf import paper
from soar_tf.ops import losses
from soar_tf.paper import line, published
from soar_tf.paper.study import float64_network

SMALL = ("--dataset", "digits", "--verbose", "0")


def stored(folder, name):
    return json.loads((Path(folder) / f"{name}.json").read_text())


def cell(report, grid, row, column):
    return report["values"][grid][row][column]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("paper") / "results"


def test_section2(output, run_cli):
    result = run_cli("reproduce", "section2", "--seeds", "2", "--output", output)
    report = stored(output, "section2")
    assert report["manifest"]["dataset"] is None and report["manifest"]["seeds"] == [0, 1]
    for d in (2, 10, 100):
        row = report["values"]["growth"][str(d)]
        assert row["moved"] == [0.0, 0.0] and max(row["clean"]) < 1e-20
        np.testing.assert_allclose(row["attacked"], row["equation2"], rtol=1e-10)
        assert row["leading_term"][0] == pytest.approx((8 / 255) ** 2 * d**2 / math.pi)
    assert 0.8 < np.mean(row["attacked"]) / row["closed_form"][0] < 1.2  # at d = 100
    fixed = report["values"]["formulas"]["equation 2"]
    assert fixed["measured"] == pytest.approx(fixed["corrected"])
    for printed, measured in zip(fixed["printed"], fixed["measured"], strict=True):
        assert printed > 1.02 * measured
    assert "ridge solution w₁" in result.stdout and "section2.png" in result.stdout
    assert (output / "section2.png").read_bytes().startswith(b"\x89PNG")


def test_the_digits_network_has_no_normalisation_to_change(output, run_cli):
    result = run_cli("reproduce", "normalization", "--output", output, *SMALL, expect=2)
    assert "Unknown `dataset` 'digits'. Allowed: cifar10." in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"table{n}" for n in range(1, 8)])
def test_tables_train_what_they_need(name, output, run_cli):
    result = run_cli("reproduce", name, "--output", output, *SMALL)
    report = stored(output, name)
    rows, printed = report["values"][name], published.TABLES[name]
    assert set(rows) == set(printed)
    for row, cells in rows.items():
        assert set(cells) == {*printed[row], "autoattack"}
        assert all(0 <= value <= 100 for values in cells.values() for value in values)
    assert "(86.33 ± 0.42)" in result.stdout or name != "table1"
    assert "the results are meaningless" in (output / f"{name}.md").read_text()
    used = {network["name"] for network in report["manifest"]["networks"]}
    assert used >= set(paper.load(name).NETWORKS)


@pytest.mark.slow
def test_readings_differ_by_their_constants_alone(output, run_cli):
    run_cli("reproduce", "readings", "--output", output, *SMALL)
    report = stored(output, "readings")
    networks = {network["name"]: network["config"] for network in report["manifest"]["networks"]}
    changed = {
        "reading-mean": {"preset": "batch_mean", "lambda_": 0.5 / 128, "norm_clip": 1280.0},
        "reading-example-zero": {"init": "zero"},
        "reading-sum": {"norm_clip": 1280.0},
    }
    first = networks["reading-example"]
    for name, arguments in changed.items():
        assert networks[name]["method_args"] == {**first["method_args"], **arguments}
        assert networks[name]["init_from"] == first["init_from"]
    cells = report["values"]["readings"]["reading-example"]
    columns = ("clean", "fgsm", "pgd7", "pgd20", "cnn-source", "zero")
    published = (81.73, 47.77, 39.15, 32.83, 72.62, 93.85)
    gap = np.mean([abs(cells[c][0] - p) for c, p in zip(columns, published, strict=True)])
    assert f"Per example, PGD1 init {gap:.1f}" in report["findings"][0]
    for column, largest in (("unclipped", 100.0), ("curvature_norm", math.inf)):
        epochs = report["values"][column]
        assert all(0 <= value <= largest for row in epochs.values() for (value,) in row.values())
        assert set(epochs["1"]) == set(networks) - {"standard", "cnn-source"}


@pytest.mark.slow
def test_figures_2_and_3_read_the_logs_of_training(output, run_cli):
    run_cli("reproduce", "figure2", "--output", output, *SMALL)
    rows = stored(output, "figure2")["values"]["figure2"]
    assert list(rows) == ["1"]  # one epoch of SOAR
    assert rows["1"]["curvature_1"][0] > 0 and rows["1"]["curvature_5"][0] > 0
    run_cli("reproduce", "figure3", "--output", output, *SMALL)
    report = stored(output, "figure3")
    for name in ("soar-lambda-0", "soar-lambda-1"):
        curve = report["data"]["curves"][name]
        assert 100 * curve["pgd20"][-1] == report["values"]["figure3"][name]["pgd20"][0]
    assert (output / "figure3.png").is_file()


@pytest.mark.slow
def test_section4(output, run_cli):
    run_cli("reproduce", "section4", "--output", output, *SMALL)
    report = stored(output, "section4")
    assert report["data"]["d"] == 9  # 8x8 digits, shrunk to 3x3
    ladder = report["values"]["ladder"]
    for name in ("small-standard", "small-soar", "small-smooth"):
        means = {rung: np.mean(ladder[rung][name]) for rung in ladder}
        assert means["box"] <= means["ball"] <= means["spectral"] <= means["frobenius"]
        assert means["mean_norm"] < means["frobenius"] <= means["scaled_mean_norm"]
    violations = report["values"]["inequalities"].values()
    assert max(max(values) for row in violations for values in row.values()) < 1e-9
    fading = report["values"]["logistic"]
    penalties = [row["penalty"][0] for row in fading.values()]
    assert penalties == sorted(penalties, reverse=True) and penalties[-1] < 1e-4
    for row in fading.values():  # 200 directions: the standard error is 5 %
        assert row["estimate_exact"][0] == pytest.approx(row["penalty"][0], rel=0.25)


def test_figures_go_on_and_take_networks(output, run_cli, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(line, "_expansions", interrupt)
        stopped = run_cli("reproduce", "figure1", "--output", output, *SMALL, expect=1)
    assert "the same command goes on" in stopped.stderr
    assert not (output / "figure1.json").exists()
    trained = output / "networks" / "digits-smoke" / "standard-seed0" / "model.keras"
    before = trained.stat().st_mtime_ns
    run_cli("reproduce", "figure1", "--output", output, *SMALL)
    assert trained.stat().st_mtime_ns == before  # trained once
    first = stored(output, "figure1")
    assert "Epochs: Standard 4.\n\nData: Optical" in first["note"]
    (network,) = first["manifest"]["networks"]
    assert not network["given"] and network["config"]["method"] == "standard"
    panels = first["data"]["panels"]
    assert [panel["direction"] for panel in panels] == ["random", "pgd"]
    for panel in panels:  # all expansions begin at the loss, which PGD raises
        begins = [values[0] for values in panel["curves"].values()]
        np.testing.assert_allclose(begins, begins[0], rtol=1e-12)
    assert panels[1]["curves"]["exact"][-1] > panels[1]["curves"]["exact"][0]

    # A second run measures nothing again, but for what was damaged.
    kept = sorted((output / "measurements").glob("line-*"))
    times = [path.stat().st_mtime_ns for path in kept]
    kept[0].write_text("{")
    run_cli("reproduce", "figure1", "--output", output, *SMALL)
    assert stored(output, "figure1")["values"] == first["values"]
    assert kept[0].stat().st_size > 1 and kept[1].stat().st_mtime_ns == times[1]

    # Half precision is another network, and the report says so.
    half = ("--precision", "mixed_bfloat16", "--output", tmp_path / "half")
    run_cli("reproduce", "figure1", *half, *SMALL)
    second = stored(tmp_path / "half", "figure1")
    assert second["manifest"]["networks"][0]["config"]["precision"] == "mixed_bfloat16"
    assert second["note"].startswith("Budget smoke, 1 seed. Trained in mixed_bfloat16, measured")
    assert second["values"] != first["values"]

    # Figure 4 from a folder of networks: nothing is trained, and the measurements are equal.
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "standard-seed0.keras").write_bytes(
        (Path(network["path"]) / "model.keras").read_bytes()
    )
    run_cli("reproduce", "figure4", "--models", folder, "--output", tmp_path / "out", *SMALL)
    fourth = stored(tmp_path / "out", "figure4")
    assert not (tmp_path / "out" / "networks").exists()
    assert fourth["manifest"]["networks"][0]["given"]
    assert fourth["values"] == first["values"] and len(fourth["data"]["panels"]) == 8


def test_refusals_write_nothing(run_cli, tmp_path):
    output = tmp_path / "out"

    def check(sentence, *arguments, place=output):
        result = run_cli("reproduce", *arguments, "--output", place, expect=2)
        assert sentence in result.stderr, result.stderr
        assert not output.exists()

    check("'table9' is not one of", "table9")
    check("is not used by section2", "section2", "--dataset", "digits")
    check("must be a folder", "figure1", "--models", tmp_path / "none")
    check("contains no network", "figure1", "--models", tmp_path)
    check("could not", "figure1", "--dataset", "cifar10", "--data-dir", tmp_path)
    (tmp_path / "file").write_text("precious")
    check("must be a folder", "section2", place=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_models_that_cannot_be_differentiated_twice_are_refused(tiny_run, run_cli, tmp_path):
    import shutil

    folder = tmp_path / "models"
    shutil.copytree(tiny_run / "saved_model", folder / "standard-seed0")
    result = run_cli(
        "reproduce", "figure1", "--models", folder, "--output", tmp_path / "out", *SMALL, expect=2
    )
    assert "as a run directory or a .keras file" in result.stderr
    assert not (tmp_path / "out").exists()


def test_float64_network(smooth_network, images):
    x, y = images
    wide = float64_network(smooth_network)
    values = wide(tf.constant(x, tf.float64))
    assert values.dtype == tf.float64
    np.testing.assert_allclose(values, smooth_network(x), atol=1e-5)
    # Digits beyond float32 survive: a step of 1e-9 moves the loss.
    moved = losses.cross_entropy(y, wide(tf.constant(x, tf.float64) + 1e-9)).numpy()
    assert np.abs(moved - losses.cross_entropy(y, values).numpy()).max() > 1e-12
