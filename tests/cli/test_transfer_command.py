"""`soar-tf transfer`: from stored models alone to the table, the JSON and the heat map."""

import json
import sys

import keras


def _network(path, shape=(8, 8, 1), classes=10):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )
    network.save(path)
    return path


def test_the_matrix_of_all_three_kinds_of_model(tiny_run, tmp_path, run_cli):
    standard, saved = tiny_run / "standard.keras", tiny_run / "saved_model"
    result = run_cli(
        "transfer",
        "--source",
        standard,
        "--source",
        saved,
        "--target",
        tiny_run,
        "--target",
        saved,
        "--attack",
        "pgd3",
        "--limit",
        "30",
        "--seed",
        "2",
        "--output",
        tmp_path / "a" / "b",
    )
    report = json.loads((tmp_path / "a" / "b" / "transfer.json").read_text())
    assert (report["n"], report["seed"], report["attack"]) == (30, 2, "pgd3")
    assert report["epsilon"] == 0.15 and report["dataset"] == "digits"
    # The run and its SavedModel are one network: as source it is each target's white box.
    for target in (tiny_run, saved):
        assert report["accuracy"][str(saved)][str(target)] == report["white_box"][str(target)]
        assert report["white_box"][str(target)] <= report["clean_accuracy"][str(target)]
    assert report["clean_accuracy"][str(tiny_run)] == report["clean_accuracy"][str(saved)]
    shown = f"{100 * report['accuracy'][str(standard)][str(saved)]:.1f} %"
    row = next(line for line in result.stdout.splitlines() if line.startswith(str(saved)))
    assert shown in row and "white-box" in result.stdout and "Linf 0.15" in result.stdout
    text = (tmp_path / "a" / "b" / "transfer.md").read_text()
    assert f"| {saved} |" in text and shown in text


def test_the_heat_map_is_optional(tiny_run, tmp_path, run_cli, monkeypatch):
    arguments = (
        "transfer",
        "--source",
        tiny_run,
        "--target",
        tiny_run,
        "--attack",
        "fgsm",
        "--limit",
        "5",
        "--json",
        "--output",
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        without = run_cli(*arguments, tmp_path / "without")
    assert "matplotlib is not installed" in without.stderr and "soar-tf[plots]" in without.stderr
    files = {path.name for path in (tmp_path / "without").iterdir()}
    assert files == {"transfer.json", "transfer.md"}
    again = run_cli(*arguments, tmp_path / "with")
    assert again.json["accuracy"] == without.json["accuracy"]
    picture = (tmp_path / "with" / "transfer.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and "matplotlib" not in again.stderr


def test_refusals_write_nothing(tiny_run, tmp_path, run_cli):
    output = tmp_path / "out"

    def check(sentence, source, *arguments, place=output):
        result = run_cli(
            "transfer",
            "--source",
            source,
            "--target",
            tiny_run,
            "--limit",
            "5",
            "--output",
            place,
            *arguments,
            expect=2,
        )
        assert sentence in result.stderr, result.stderr
        assert result.stdout == "" and not output.exists()

    check("takes images of shape (4, 4, 1)", _network(tmp_path / "small.keras", (4, 4, 1)))
    check("must have the same classes", _network(tmp_path / "more.keras", classes=12))
    check("has 3 classes", _network(tmp_path / "less.keras", classes=3))
    check("does not exist", tmp_path / "none")
    check("must be a run directory", tmp_path)
    check("Did you mean 'pgd20'?", tiny_run, "--attack", "pdg20")
    check("write 8/255", tiny_run, "--epsilon", "8")
    check("Did you mean 'digits'?", tiny_run, "--dataset", "digit")
    (tmp_path / "file").write_text("precious")
    check("must be a folder", tiny_run, place=tmp_path / "file")
    check("must be a folder", tiny_run, place=tmp_path / "file" / "out")
    check("cannot be written", tiny_run, place="/proc/out")
    assert (tmp_path / "file").read_text() == "precious"
    result = run_cli(
        "transfer",
        "--source",
        tmp_path / "more.keras",
        "--target",
        tmp_path / "more.keras",
        "--output",
        output,
        expect=2,
    )
    assert "`dataset` is needed" in result.stderr
    assert (
        "Missing option '--target'"
        in run_cli("transfer", "--source", tiny_run, "--output", output, expect=2).stderr
    )
