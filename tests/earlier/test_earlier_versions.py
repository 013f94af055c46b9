"""What version 0.1.0 wrote loads and resumes, and ends as version 0.1.0 itself would have.

`write.py` says how the files were made. On the processor that they were made on, with the same
TensorFlow, an evaluation ends with equal bits. Elsewhere matrix products add in another order, and
a few images may fall the other way. A run of SOAR ends with equal numbers up to rounding only, on
that processor, too: version 0.1.0 resumes it with equal bits, and later steps round otherwise.
"""

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import soar_tf
from soar_tf.cli.main import main
from soar_tf.models import loading
from soar_tf.runs import models, provenance

FILES = Path(__file__).parent / "files"
FINISHED = FILES / "finished"
ATTACKS = ("fgsm", "pgd:steps=3,restarts=2", "square:queries=20")
RUN = (
    *("train", "--method", "soar", "--dataset", "digits", "--network", "mlp"),
    *("--network-arg", "width=0.05", "--limit", "64", "--batch-size", "32", "--seed", "5"),
    *("--pretrain-epochs", "1", "--epochs", "2", "--verbose", "0", "--evaluate", "0"),
)


def _same_machine():
    there = json.loads((FINISHED / "manifest.json").read_text())
    here = provenance.environment()
    names = ("processor", "cpu_flags", "onednn", "threads")
    libraries = ("tensorflow", "keras", "numpy")
    return all(there[name] == here[name] for name in names) and all(
        there["versions"][name] == here["versions"].get(name) for name in libraries
    )


def assert_equal_up_to_rounding(arrays, expected):
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def images():
    test = soar_tf.datasets.load("digits", splits=("test",))["test"].take(48)
    return test.float_images(), test.labels


def test_an_unfinished_run_resumes_and_ends_as_it_would_have(tmp_path):
    run = shutil.copytree(FILES / "run", tmp_path / "run")
    arguments = [*RUN, "--workdir", str(run), "--allow-mixed-environment"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    weights = models.load(run).network.get_weights()
    expected = keras.saving.load_model(FINISHED / "model.keras").get_weights()
    assert_equal_up_to_rounding(weights, expected)
    rows, expected = (list(csv.DictReader((p / "log.csv").open())) for p in (run, FINISHED))
    assert [row["phase"] for row in rows] == [row["phase"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        names = [name for name in other if name != "phase" and other[name]]
        assert_equal_up_to_rounding(
            *([np.array([float(r[name]) for name in names])] for r in (row, other))
        )


@pytest.mark.parametrize("name", ["", "model.keras", "standard.keras", "saved_model"])
def test_networks_load_and_give_the_same_logits(name, images):
    loaded = models.load(FINISHED / name)
    x = tf.constant(images[0])
    network = "standard.keras" if name == "standard.keras" else "model.keras"
    expected = keras.saving.load_model(FINISHED / network)(x, training=False)
    np.testing.assert_allclose(loaded.logits_fn(x), expected, rtol=1e-5, atol=1e-5)


def test_a_finished_run_is_known_as_complete(tmp_path):
    run = shutil.copytree(FINISHED, tmp_path / "run")
    result = CliRunner().invoke(main, [*RUN, "--workdir", str(run)])
    assert result.exit_code == 0, result.output
    assert "this run is complete already" in result.output


def test_an_unfinished_evaluation_resumes_and_ends_as_it_would_have(tmp_path, images):
    state = shutil.copy(FILES / "evaluation.state", tmp_path / "evaluation.state")
    network = loading.load(FINISHED / "model.keras").network
    calls = []
    result = soar_tf.evaluate(
        network,
        *images,
        ATTACKS,
        batch_size=12,
        seed=7,
        uint8=True,
        adaptive=False,
        state=state,
        progress=calls.append,
    )
    stored = np.load(FILES / "robust.npz")
    report = json.loads((FILES / "evaluation.json").read_text())
    assert [attack.name for attack in result.attacks] == [
        name for name in stored if name != "clean"
    ]
    for attack in result.attacks:
        differing = int((attack.robust != stored[attack.name]).sum())
        assert differing == 0 if _same_machine() else differing <= 2
    if _same_machine():
        assert np.array_equal(result.clean, stored["clean"])
        assert result.worst_case_accuracy == report["worst_case_accuracy"]
        assert result.uint8_worst_case_accuracy == report["uint8_worst_case_accuracy"]
    # What the file has is not computed again.
    fresh = []
    soar_tf.evaluate(
        network,
        *images,
        ATTACKS,
        batch_size=12,
        seed=7,
        uint8=True,
        adaptive=False,
        progress=fresh.append,
    )
    assert len(calls) < len(fresh)
