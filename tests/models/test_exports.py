"""`soar_tf.export` to every format, and the shipped files in their own runtimes."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError, RunError
from soar_tf.models import artefacts, exports, loading

RUNTIME = {"litert": "ai_edge_litert", "onnx": "tf2onnx"}
SUFFIX = {"saved_model": "", "keras": ".keras", "litert": ".tflite", "onnx": ".onnx"}


def _needs(name):
    if name in RUNTIME and importlib.util.find_spec(RUNTIME[name]) is None:
        pytest.skip(f"{RUNTIME[name]} is not installed")


@pytest.fixture
def linear():
    """A linear network, its images and its logits in float64."""
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    generator = np.random.default_rng(5)
    weights, bias = generator.normal(size=(16, 3)), generator.normal(size=3)
    network.set_weights([weights, bias])
    x = generator.uniform(size=(20, 4, 4, 1)).astype("float32")
    return network, x, x.reshape(20, 16).astype("float64") @ weights + bias


@pytest.mark.parametrize("name", sorted(SUFFIX))
def test_every_format_computes_the_network(name, linear, tmp_path):
    _needs(name)
    network, x, logits = linear
    path = tmp_path / f"shipped{SUFFIX[name]}"
    found = soar_tf.export(network, path, name)
    assert (found.same_top_class, found.compared_on, found.images) == (1.0, "noise", 64)
    assert found.largest_difference < 1e-5 and found.bytes > 0
    loaded = loading.load(path)
    assert (loaded.input_shape, loaded.num_classes) == ((4, 4, 1), 3)
    for batch in (x, x[:7]):  # any size
        np.testing.assert_allclose(loaded.logits_fn(batch), logits[: len(batch)], atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("quantize", "step"), [("float16", 2e-3), ("int8", 0.1)])
def test_quantized_files_are_near_the_network(quantize, step, linear, tmp_path):
    _needs("litert")
    network, x, logits = linear
    path = tmp_path / "shipped.tflite"
    found = soar_tf.export(network, path, "litert", quantize=quantize, images=x)
    loaded = loading.load(path)
    error = np.abs(loaded.logits_fn(x) - logits).max()
    assert 1e-6 < error < step  # it is quantized, and it is the network
    assert found.compared_on == "images"
    assert found.largest_difference == pytest.approx(error, abs=1e-5)
    assert ("int8" in loaded.artefact.types) == (quantize == "int8")


def test_an_int8_file_that_takes_integers(linear, tmp_path):
    _needs("litert")
    network, x, logits = linear
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (tmp_path / "integers.tflite").write_bytes(converter.convert())
    loaded = loading.load(tmp_path / "integers.tflite")
    assert np.abs(loaded.logits_fn(x) - logits).max() < 0.2


def test_onnx_files_with_channels_first(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(1).normal(size=(75, 4)).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 3, 5, 5])],
        [helper.make_tensor_value_info("logits", kind, ["batch", 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "m.onnx")
    loaded = loading.load(tmp_path / "m.onnx")
    assert loaded.input_shape == (5, 5, 3)
    x = np.random.default_rng(2).uniform(size=(6, 5, 5, 3)).astype("float32")
    expected = x.transpose(0, 3, 1, 2).reshape(6, 75) @ weights
    np.testing.assert_allclose(loaded.logits_fn(x), expected, atol=1e-5)


def test_an_export_that_is_not_the_network_is_not_written(linear, tmp_path, monkeypatch):
    network, _, _ = linear

    class Wrong(exports.KerasFormat):
        def write(self, network, path, *, quantize=None, images=None):
            other = keras.models.clone_model(network)
            other.set_weights([0.9 * weight for weight in network.get_weights()])
            other.save(path)

    monkeypatch.setitem(exports.ALL_OBJECTS, "keras", Wrong)
    with pytest.raises(RunError, match="was not written: its logits differ"):
        soar_tf.export(network, tmp_path / "m.keras", "keras")
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_is_left(linear, tmp_path, monkeypatch):
    def fail(self, network, path, **_):
        path.write_text("half")
        raise RuntimeError("no such operation\nin this network")

    monkeypatch.setattr(exports.KerasFormat, "write", fail)
    with pytest.raises(InputError, match="cannot be written as a Keras file: no such operation$"):
        soar_tf.export(linear[0], tmp_path / "m.keras", "keras")
    assert not list(tmp_path.iterdir())


def test_what_is_refused(linear, tmp_path, monkeypatch):
    network, _, _ = linear
    (tmp_path / "there.keras").write_text("precious")
    for path, name, arguments, message in (
        ("there.keras", "keras", {}, "must not exist yet"),
        ("m.tflite", "keras", {}, "must end in .keras"),
        ("m.keras", "keras", {"quantize": "int8"}, "is for LiteRT only"),
        ("m.keras", "kears", {}, "Did you mean 'keras'"),
    ):
        with pytest.raises(InputError, match=message):
            soar_tf.export(network, tmp_path / path, name, **arguments)
    assert (tmp_path / "there.keras").read_text() == "precious"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"LiteRT needs ai_edge_litert.*pip install 'soar-tf\[lit"):
        soar_tf.export(network, tmp_path / "m.tflite", "litert")
    with pytest.raises(InputError, match=r"ONNX needs onnx, .*pip install 'soar-tf\[onnx\]'"):
        soar_tf.export(network, tmp_path / "m.onnx", "onnx")


def test_int8_needs_images(linear, tmp_path):
    _needs("litert")
    with pytest.raises(InputError, match="`images` are needed to calibrate int8"):
        soar_tf.export(linear[0], tmp_path / "m.tflite", "litert", quantize="int8")


def test_gradients_are_known_not_to_exist(linear, tmp_path):
    _needs("litert")
    soar_tf.export(linear[0], tmp_path / "m.tflite", "litert")
    assert not artefacts.has_gradients(loading.load(tmp_path / "m.tflite").logits_fn)
    assert artefacts.has_gradients(linear[0])
