"""`soar-tf evaluate --output DIR`: the files, the second run, and what is refused."""

import csv
import json
import re
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

BASE = ("--attack", "fgsm", "--attack", "pgd3", "--limit", "40", "--batch-size", "16")


@pytest.fixture(scope="module")
def report(tiny_run, tmp_path_factory):
    """A folder with everything in it, and what the command printed."""
    from click.testing import CliRunner

    from soar_tf.cli.main import main

    folder = tmp_path_factory.mktemp("reports") / "deep" / "tiny"
    arguments = [
        "evaluate",
        tiny_run,
        *BASE,
        "--curve",
        "--curve-attack",
        "fgsm",
        "--uint8",
        "--save-adversarial",
        "--epsilon",
        "0.2",
        "--output",
        folder,
    ]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return folder, arguments, result


def test_the_folder_holds_the_promised_files(report):
    folder, _, result = report
    assert {path.name for path in folder.iterdir()} == {
        "report.json",
        "report.md",
        "report.html",
        "examples.npz",
        "examples.csv",
        "adversarial.npz",
        "accuracy-epsilon.png",
        "evaluation.state",
    }
    assert f"Report: {folder / 'report.html'}" in result.stdout


def test_the_headline_is_the_same_everywhere(report):
    folder, _, result = report
    found = json.loads((folder / "report.json").read_text())
    low, high = found["worst_case_interval"]
    assert low < found["worst_case_accuracy"] < high
    texts = [
        f"{100 * found['worst_case_accuracy']:.1f} %",
        f"{100 * low:.1f} %",
        "n = 40",
        f"{100 * high:.1f} %",
        "Linf 51/255",
        found["note"],
    ]
    for page in (
        (folder / "report.md").read_text(),
        (folder / "report.html").read_text(),
        result.stdout,
    ):
        for text in texts:
            assert text in page
        assert "unreliable" not in page.lower() and "autoattack, which was not run" in page
    assert found["data"]["fingerprint"] and "Handwritten Digits" in found["data"]["provenance"]
    assert found["environment"]["versions"]["tensorflow"] and found["reliability"] == "not checked"


def test_the_table_agrees_with_the_figures(report, digits):
    folder, _, _ = report
    found = json.loads((folder / "report.json").read_text())
    with np.load(folder / "examples.npz") as table:
        columns = {name: table[name] for name in table}
    withstood = columns["broken_by"] == ""
    assert withstood.mean() == found["worst_case_accuracy"]
    assert columns["clean_correct"].mean() == found["clean_accuracy"]
    np.testing.assert_array_equal(columns["label"], digits["test"].labels[:40])
    rows = list(csv.DictReader((folder / "examples.csv").open()))
    assert list(rows[0]) == list(columns) and len(rows) == 40
    assert [row["broken_by"] for row in rows] == columns["broken_by"].tolist()
    for row, alone in zip(rows, withstood, strict=True):
        assert (row["linf"] == "") == (row["adversarial_prediction"] == "") == alone


def test_saved_adversarial_images_still_fool_after_a_reload(report, tiny_run, digits):
    folder, _, _ = report
    found = json.loads((folder / "report.json").read_text())
    network = keras.saving.load_model(tiny_run / "model.keras")
    with np.load(folder / "adversarial.npz") as saved:
        x_adv, label, index = saved["x_adv"], saved["label"], saved["index"]
        clean, predictions = saved["x"], saved["adversarial_prediction"]
    assert len(index) == found["uint8"]["found"] > 3
    np.testing.assert_array_equal(clean, digits["test"].float_images()[index])
    np.testing.assert_array_equal(network.predict(x_adv, verbose=0).argmax(1), predictions)
    assert (predictions != label).all()
    assert np.abs(x_adv - clean).max() <= 0.2 + 1e-6
    # First found by one attack; the count is over all of them, so it can only be larger.
    rounded = network.predict(np.round(x_adv * 255) / 255, verbose=0).argmax(1) != label
    assert rounded.sum() <= found["uint8"]["still_fool"] <= len(index)


def test_the_curve_falls_and_agrees_with_the_attack(report):
    folder, _, _ = report
    found = json.loads((folder / "report.json").read_text())
    epsilons, accuracy = found["curve"]["epsilons"], found["curve"]["accuracy"]
    assert epsilons == pytest.approx([0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.8])
    assert accuracy[0] == found["clean_accuracy"] and accuracy == sorted(accuracy, reverse=True)
    # FGSM broke at most this many at 0.2; with the smaller radii, perhaps more.
    assert accuracy[3] <= found["attacks"][0]["robust_accuracy"]
    sampled, nearest = found["curve"]["attacks"]
    assert (sampled["attack"], nearest["attack"]) == ("fgsm", "fmn")
    for alone in (sampled["accuracy"], nearest["accuracy"]):
        assert all(both <= one for both, one in zip(accuracy, alone, strict=True))
    fine = found["curve"]["fine"]
    at = [fine["accuracy"][fine["epsilons"].index(epsilon)] for epsilon in epsilons]
    assert at == accuracy and fine["accuracy"] == sorted(fine["accuracy"], reverse=True)


def test_the_table_holds_the_distances(report):
    folder, _, result = report
    found = json.loads((folder / "report.json").read_text())
    with np.load(folder / "examples.npz") as table:
        distance, clean = table["distance_linf"], table["clean_correct"]
    assert (distance[~clean] == 0).all() and (distance[clean] > 0).all()
    curve = found["curve"]
    for epsilon, accuracy in zip(curve["epsilons"], curve["attacks"][1]["accuracy"], strict=True):
        assert np.mean(~(distance <= epsilon)) == accuracy
    assert np.median(distance) == curve["median_distance"]
    page, text = (folder / "report.md").read_text(), result.stdout
    assert "\n| fmn |" in page and "\n| worst case |" in page and "Median distance" in page
    assert "Median distance (fmn): Linf" in text
    row = next(line for line in text.splitlines() if line.startswith("51/255 "))
    assert len(row.split("%")) == 4  # worst case, fgsm, fmn


def test_the_page_needs_nothing_from_the_network_and_shows_what_broke(report):
    folder, _, _ = report
    page = (folder / "report.html").read_text()
    assert "<script" not in page and not re.search(r"(src|href)=\"(?!data:|#)", page)
    targets = re.findall(r'href="#(\w+)"', page)
    assert targets == re.findall(r'<h2 id="(\w+)"', page) and "curve" in targets
    assert "<code>--attack autoattack --masking --limit 1000</code>" in page
    assert page.count("<img") == len(re.findall(r'<img[^>]* alt="[^"]+"', page))
    found = json.loads((folder / "report.json").read_text())
    shown = min(found["uint8"]["found"], 12)
    assert page.count("<figure>") == shown and page.count("data:image/png") == 3 * shown + 1
    assert "change x" in page


def test_the_second_run_is_complete_already_and_a_damaged_one_is_refused(report, run_cli):
    folder, arguments, _ = report
    before = json.loads((folder / "report.json").read_text())
    again = run_cli(*arguments)
    assert "complete already" in again.stderr and " robust so far" not in again.stderr
    after = json.loads((folder / "report.json").read_text())
    del before["environment"], after["environment"]
    assert after == before
    result = run_cli(*arguments, "--seed", "1", expect=2)
    assert "belongs to another evaluation: seed differs" in result.stderr
    state = folder / "evaluation.state"
    good = state.read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    state.write_bytes(damaged)
    assert "is damaged" in run_cli(*arguments, expect=2).stderr
    state.unlink()
    assert "without its evaluation.state" in run_cli(*arguments, expect=2).stderr
    state.write_bytes(good)


def test_refusals_write_nothing(tiny_run, tmp_path, run_cli):
    folder = tmp_path / "out"

    def check(sentence, *arguments):
        result = run_cli("evaluate", tiny_run, *BASE, *arguments, expect=2)
        assert sentence in result.stderr and result.stdout == "" and not folder.exists()

    check("--curve-attack needs --curve", "--curve-attack", "fgsm")
    check("--curve-minimum needs --curve", "--curve-minimum", "fmn")
    check("--curve-epsilon needs --curve", "--curve-epsilon", "8/255")
    check(
        "must look for the nearest point: deepfool, ddn, fmn, cw, lbfgs. Received: PGD",
        "--curve",
        "--curve-minimum",
        "pgd20",
    )
    check("is for l2, but the curve's attack 'pgd20' for linf", "--curve", "--curve-minimum", "ddn")
    check("--save-adversarial needs --output DIR", "--save-adversarial", "--output", "r.json")
    check("must have a radius", "--curve", "--curve-attack", "spatial", "--output", folder)
    check("must name a file", "--dataset", "npz:none.npz", "--output", folder)
    check("does not exist", "--state", tmp_path / "none" / "s", "--output", folder)
    check("`epsilons` must be", "--curve", "--curve-epsilon", "2", "--output", folder)
    (tmp_path / "file").write_text("")
    check("must be a folder", "--output", tmp_path / "file")
    check("is no state file", "--state", tmp_path / "file", "--output", folder)


def test_silence(tiny_run, run_cli):
    arguments = ("evaluate", tiny_run, "--attack", "fgsm", "--limit", "10")
    assert run_cli(*arguments, "--verbose", "0").stderr == ""
    assert "images, " in run_cli(*arguments).stderr


@pytest.mark.slow
def test_kill_minus_nine(tiny_run, tmp_path):
    def command(folder):
        return [
            sys.executable,
            "-m",
            "soar_tf.cli",
            "evaluate",
            str(tiny_run),
            "--attack",
            "autoattack",
            "--attack",
            "l2pgd100:steps=1000",
            "--limit",
            "60",
            "--batch-size",
            "6",
            "--output",
            str(folder),
        ]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kills = 0
    for size in (1, 20_000, 30_000):
        process = subprocess.Popen(command(killed))
        state, begun = killed / "evaluation.state", time.monotonic()
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and time.monotonic() - begun < 300:
            if (
                state.exists()
                and state.stat().st_size > size
                and (state.stat().st_mtime_ns > before)
            ):
                process.kill()
                kills += process.wait() == -9
                break
            time.sleep(0.02)
    assert kills >= 1
    for folder in (killed, whole):
        subprocess.run(command(folder), check=True)
    for name in ("examples.csv",):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    first, second = (json.loads((f / "report.json").read_text()) for f in (killed, whole))
    for one, two in zip(first["attacks"], second["attacks"], strict=True):
        assert one["robust_accuracy"] == two["robust_accuracy"]
