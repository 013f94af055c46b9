"""The zoo, with an entry made of a small run: the same code makes and reads the committed ones."""

import importlib.util
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from snippets import ROOT

import soar_tf
from soar_tf.cli.completion import Model
from soar_tf.errors import InputError
from soar_tf.evaluation.state import fingerprint
from soar_tf.models import zoo
from soar_tf.runs import models

SPEC = importlib.util.spec_from_file_location("add_to_zoo", ROOT / "tools" / "add_to_zoo.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


@pytest.fixture(scope="module")
def report(tiny_run, tmp_path_factory):
    """A true report of the run, with AutoAttack's and the masking checks' parts made up."""
    from soar_tf.reports.evaluation import evaluate_model
    from soar_tf.runs.evaluation_config import EvaluationConfig

    found = evaluate_model(tiny_run, EvaluationConfig(limit=40))
    found["attacks"].append({**found["attacks"][1], "name": "autoattack"})
    check = {"name": "black_box", "verdict": "fail", "figure": 0.1, "sentence": "A | broke it."}
    found |= {"masking": {"verdict": "fail", "checks": [check]}, "reliability": "unreliable"}
    found["environment"]["command"] = "soar-tf evaluate /secret/run --data-dir /secret/data"
    path = tmp_path_factory.mktemp("report") / "report.json"
    path.write_text(json.dumps(found))
    return path


@pytest.fixture(scope="module")
def made(tiny_run, report, tmp_path_factory):
    """A zoo of one network, `digits-tiny`."""
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(zoo.VARIABLE, str(folder))
        tool.add(tiny_run, report.parent, "digits-tiny", notes=["A note."])
        tool.refresh_markdown()
    return folder


@pytest.fixture
def entry(made, monkeypatch):
    monkeypatch.setenv(zoo.VARIABLE, str(made))
    return made / "digits-tiny"


def test_an_entry_holds_the_runs_network_twice(entry, tiny_run, digits):
    assert zoo.names() == ["digits-tiny"] and zoo.path("digits-tiny") == entry
    assert sorted(p.name for p in entry.iterdir()) == [
        "README.md",
        "card.json",
        "model.keras",
        "saved_model",
    ]
    x = digits["test"].take(16).float_images()
    logits = keras.saving.load_model(tiny_run / "model.keras", compile=False)(x).numpy()
    np.testing.assert_array_equal(zoo.load("digits-tiny")(x), logits)
    plain = tf.saved_model.load(str(entry / "saved_model"))
    np.testing.assert_allclose(plain.serve(x), logits, atol=1e-5)
    assert tool.size_of(entry / "saved_model" / "variables") < 1.1 * _bytes(tiny_run)


def _bytes(run):
    network = keras.saving.load_model(run / "model.keras", compile=False)
    return sum(weight.nbytes for weight in network.get_weights()) + 2000


def test_the_card_tells_all(entry, tiny_run, report):
    card = zoo.card("zoo:digits-tiny")
    weights = keras.saving.load_model(tiny_run / "model.keras", compile=False).get_weights()
    assert card["weights"] == fingerprint(*weights)
    assert card["config"]["method"] == "soar" and card["config"]["method_args"]["epsilon"] == 0.15
    assert [row["phase"] for row in card["training"]] == ["standard", "standard", "soar"]
    assert card["report"]["attacks"] == json.loads(report.read_text())["attacks"]
    assert card["files"]["model.keras"] == (entry / "model.keras").stat().st_size
    assert "A note." in card["limits"] and "black_box" in card["limits"][0]
    text = (entry / "README.md").read_text()
    assert "**UNRELIABLE**" in text and r"A \| broke it." in text
    assert text.count("\n| standard | ") == 2 and text.count("\n| soar | ") == 1
    assert "/secret" not in json.dumps(card) + text and str(tiny_run) not in json.dumps(card)
    assert "`soar`" in text and 'method = "soar"' in text and "lambda_ = " in text


def test_evaluate_knows_the_data_set_and_finds_the_cards_figures(entry, run_cli):
    found = run_cli(
        "evaluate", "zoo:digits-tiny", "--limit", 256, "--attack", "pgd20", "--json"
    ).json
    check = zoo.card("digits-tiny")["check"]
    assert (found["model"], found["dataset"], found["n"]) == ("zoo:digits-tiny", "digits", 256)
    assert found["clean_accuracy"] == check["clean"]
    assert found["attacks"][0]["robust_accuracy"] == check["pgd20"]
    assert found["weights"] == zoo.card("digits-tiny")["weights"]


def test_every_place_that_takes_a_model_takes_the_scheme(entry, run_cli, tmp_path, digits):
    run_cli(
        "transfer",
        "--source",
        "zoo:digits-tiny",
        "--target",
        entry,
        "--attack",
        "fgsm",
        "--limit",
        20,
        "--output",
        tmp_path / "transfer",
    )
    stored = json.loads((tmp_path / "transfer" / "transfer.json").read_text())
    assert stored["sources"] == ["zoo:digits-tiny"] and stored["dataset"] == "digits"
    assert models.network_path("zoo:digits-tiny") == entry / "model.keras"
    run_cli("export", "zoo:digits-tiny", tmp_path / "exported")
    assert (tmp_path / "exported" / "saved_model.pb").is_file()
    test = digits["test"].take(20)
    data = (test.float_images(), test.labels)
    by_name = soar_tf.evaluate("zoo:digits-tiny", *data, ["fgsm"])
    assert (
        by_name.clean.tolist()
        == (zoo.load("digits-tiny")(data[0]).numpy().argmax(1) == data[1]).tolist()
    )
    source = soar_tf.callbacks.TransferAccuracy("zoo:digits-tiny", data, "fgsm").source
    assert source.count_params() == zoo.card("digits-tiny")["parameters"]


def test_training_curves_of_a_card_are_drawn(entry, run_cli, tmp_path):
    pytest.importorskip("matplotlib")
    printed = run_cli("plot", "zoo:digits-tiny", "--output", tmp_path / "pictures").stdout
    assert printed.splitlines() == [str(tmp_path / "pictures" / "training-curves.png")]


def test_the_list_shows_figures_and_what_is_unreliable(entry, run_cli):
    lines = run_cli("list", "zoo").stdout.splitlines()
    card = zoo.card("digits-tiny")
    pgd20 = f"{100 * card['report']['attacks'][1]['robust_accuracy']:.1f} %"
    assert lines[0].split() == [
        "network",
        "method",
        "clean",
        "PGD-20",
        "AutoAttack",
        "n",
        "masking",
        "size",
    ]
    assert "unreliable" in lines[2] and " soar " in lines[2] and lines[2].count(pgd20) >= 2
    assert run_cli("list", "zoo", "--json").json["digits-tiny"]["n"] == 40


def test_names_are_completed(entry, monkeypatch, tmp_path):
    def offered(typed):
        return [item.value for item in Model().shell_complete(None, None, typed)]

    assert offered("zoo") == offered("zoo:dig") == ["zoo:digits-tiny"]
    assert Model().shell_complete(None, None, "zo")[0].type == "plain"
    assert Model().shell_complete(None, None, "runs/z")[0].type == "file"
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path / "nowhere"))
    assert Model().shell_complete(None, None, "zoo:")[0].type == "file"


def test_the_markdown_is_that_of_the_cards(entry):
    for path, text in tool.markdown().items():
        assert path.read_text() == text
    index = (entry.parent / "README.md").read_text()
    assert "[digits-tiny](digits-tiny/README.md) | soar |" in index and "| unreliable |" in index


def test_unknown_names_and_missing_zoos_are_refused(entry, run_cli, monkeypatch, tmp_path):
    result = run_cli("evaluate", "zoo:digits-tin", expect=2)
    assert "Unknown zoo network 'digits-tin'. Did you mean 'digits-tiny'?" in result.stderr
    with pytest.raises(InputError, match="Unknown zoo network"):
        zoo.path("../digits-tiny")
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match="holds no networks"):
        zoo.load("digits-tiny")
    assert run_cli("list", "zoo").stdout == "The zoo holds no networks.\n"
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path / "nowhere"))
    assert "must name a folder" in run_cli("list", "zoo", expect=2).stderr
    monkeypatch.delenv(zoo.VARIABLE)
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "site" / "soar_tf" / "models" / "zoo.py"))
    assert "clone it, and set SOAR_TF_ZOO" in run_cli("list", "zoo", expect=2).stderr


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("{}", "is no model card: `format`"),
        ('{"format": 9, "name": "", "config": {}, "weights": "", "report": {}}', "reads 1"),
        ('{"format": 1, "name": "x", "config": {}, "weights": "", "report": {}}', "lacks figures"),
    ],
)
def test_damaged_cards_are_refused(entry, content, sentence, tmp_path, monkeypatch, run_cli):
    shutil.copytree(entry, tmp_path / "damaged")
    (tmp_path / "damaged" / "card.json").write_text(content)
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path))
    assert sentence in run_cli("list", "zoo", expect=2).stderr


def _without_masking(found):
    del found["masking"]


def _without_autoattack(found):
    found["attacks"].pop()


def _of_other_weights(found):
    found["weights"] = "0" * 16


def _of_another_split(found):
    found["split"] = "validation"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without_masking, "lacks the masking checks"),
        (_without_autoattack, "lacks autoattack"),
        (_of_other_weights, "is of other weights"),
        (_of_another_split, "must be on the test images of digits"),
    ],
)
def test_a_report_that_does_not_tell_all_is_refused(
    change, sentence, tiny_run, report, tmp_path, monkeypatch
):
    found = json.loads(report.read_text())
    change(found)
    (tmp_path / "report.json").write_text(json.dumps(found))
    (tmp_path / "zoo").mkdir()
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path / "zoo"))
    with pytest.raises(InputError, match=sentence):
        tool.add(tiny_run, tmp_path, "new")
    assert not list((tmp_path / "zoo").iterdir())


def test_an_entry_is_replaced_on_demand_only_and_the_zoo_stays_small(
    entry, tiny_run, report, monkeypatch
):
    with pytest.raises(InputError, match="is in the zoo already"):
        tool.add(tiny_run, report, "digits-tiny")
    with pytest.raises(InputError, match="must be lower-case letters"):
        tool.add(tiny_run, report, "../Digits")
    before = (entry / "card.json").read_bytes()
    monkeypatch.setattr(zoo, "MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="would bring the zoo to"):
        tool.add(tiny_run, report, "digits-tiny", replace=True)
    assert (entry / "card.json").read_bytes() == before
    assert sorted(p.name for p in entry.parent.iterdir()) == ["README.md", "digits-tiny"]


def test_the_commands_begin_with_those_of_the_run_it_started_from(entry, tmp_path, tiny_run):
    shutil.copytree(tiny_run, tmp_path / "first")
    second = tmp_path / "second"
    second.mkdir()
    (second / "manifest.json").write_text('{"command": "soar-tf train --workdir /x/second"}')
    (second / "config.toml").write_text('init_from = "first"')
    commands, start = tool.ancestry(second)
    assert commands[1:] == ["soar-tf train --workdir second"] and len(commands) == 2
    assert start == "zoo:digits-tiny"  # the same weights
    (second / "config.toml").write_text('init_from = "zoo:digits-tiny"')
    assert tool.ancestry(second) == (commands, start)
    (second / "config.toml").write_text('init_from = "lost"')
    with pytest.raises(InputError, match="started from lost"):
        tool.ancestry(second)
