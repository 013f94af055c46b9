"""`soar-tf export`."""

import importlib.util

import keras
import numpy as np
import pytest

from soar_tf import registry
from soar_tf.models import exports, loading

litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed"
)


def test_a_saved_model(tiny_run, tmp_path, run_cli, digits):
    result = run_cli("export", tiny_run / "model.keras", tmp_path / "out")
    assert result.stdout.startswith(f"{tmp_path / 'out'}\n")
    layer = keras.layers.TFSMLayer(str(tmp_path / "out"), call_endpoint="serving_default")
    x = digits["test"].take(4).float_images()
    (outputs,) = layer(x).values() if isinstance(layer(x), dict) else (layer(x),)
    network = keras.saving.load_model(tiny_run / "model.keras")
    np.testing.assert_allclose(outputs, network.predict(x, verbose=0), atol=1e-5)


@litert
def test_int8_is_calibrated_with_the_runs_validation_images(tiny_run, tmp_path, run_cli, digits):
    path = tmp_path / "m.tflite"
    found = run_cli(
        "export", tiny_run, path, "--quantize", "int8", "--calibrate", 50, "--json"
    ).json
    assert (found["format"], found["quantize"], found["images"]) == ("litert", "int8", 50)
    assert found["same_top_class"] >= 0.9 and found["bytes"] == path.stat().st_size
    x = digits["test"].take(20).float_images()
    wanted = loading.load(tiny_run / "model.keras").logits_fn(x).numpy()
    error = np.abs(loading.load(path).logits_fn(x) - wanted).max()
    assert 0 < error < 0.1 * np.abs(wanted).max()


@litert
def test_a_model_without_data_of_its_own_needs_a_data_set(tiny_run, tmp_path, run_cli):
    arguments = ["export", tiny_run / "model.keras", tmp_path / "m.tflite", "--quantize", "int8"]
    assert "`dataset` is needed" in run_cli(*arguments, expect=2).stderr
    run_cli(*arguments, "--dataset", "digits", "--calibrate", 20)
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]


def test_options_that_would_do_nothing(tiny_run, tmp_path, run_cli):
    result = run_cli("export", tiny_run, tmp_path / "m.tflite", "--calibrate", 5, expect=2)
    assert "--calibrate needs --quantize int8" in result.stderr
    result = run_cli("export", tiny_run, tmp_path / "m.keras", "--quantize", "int8", expect=2)
    assert "`quantize` is for LiteRT only" in result.stderr


def test_formats_are_completed_and_listed(run_cli):
    assert list(registry.EXPORT_FORMATS) == list(exports.ALL_OBJECTS)
    assert "litert" in run_cli("list", "formats").stdout
