"""The precision that a network trains in, and the one that it is saved in."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import soar_tf
from soar_tf.models.precision import saved_in_float32, set_precision
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.experiment import Experiment

HALF = ("mixed_bfloat16", "mixed_float16")


def _dtypes(network):
    return {layer.name: layer.compute_dtype for layer in network.layers}


def _graph_dtypes(network, x):
    graph = tf.function(network).get_concrete_function(x).graph
    return {op.outputs[0].dtype.name for op in graph.get_operations() if op.type == "MatMul"}


@pytest.mark.parametrize("precision", HALF)
def test_all_but_the_outputs_compute_in_half(precision):
    network = soar_tf.networks.mlp(width=0.1)
    x = tf.zeros([2, 8, 8, 1])
    assert _graph_dtypes(network, x) == {"float32"}
    set_precision(network, precision)
    assert _graph_dtypes(network, x) == {precision.removeprefix("mixed_"), "float32"}
    assert network(x).dtype == tf.float32
    assert {v.dtype for v in network.variables} == {"float32"}
    set_precision(network, "float32")
    assert _graph_dtypes(network, x) == {"float32"}


def test_outputs_of_models_within_the_model_stay_saved_in_float32():
    inner = keras.Sequential([keras.Input([4]), layers.Dense(3), layers.Dense(2, name="logits")])
    inputs = keras.Input([4])
    network = keras.Model(inputs, inner(layers.Dense(4, name="first")(inputs)))
    set_precision(network, "mixed_bfloat16")
    found = {**_dtypes(network), **_dtypes(inner)}
    assert (found["first"], found["logits"]) == ("bfloat16", "float32")


def test_layers_of_other_dtypes_are_left():
    network = keras.Sequential(
        [
            keras.Input([4]),
            layers.Dense(3, dtype="float64", name="wide"),
            layers.Dense(2),
        ]
    )
    set_precision(network, "mixed_bfloat16")
    assert _dtypes(network)["wide"] == "float64"


def test_the_context_restores_every_layer_also_after_an_error():
    network = soar_tf.networks.mlp(width=0.1)
    set_precision(network, "mixed_bfloat16")
    before = _dtypes(network)
    with pytest.raises(RuntimeError), saved_in_float32(network):
        assert set(_dtypes(network).values()) == {"float32"}
        raise RuntimeError
    assert _dtypes(network) == before


@pytest.fixture(scope="module")
def half_run(tmp_path_factory):
    """A run in half precision, on few digits."""
    config = TrainConfig(method="adversarial", epochs=1, limit=256, precision="mixed_bfloat16")
    experiment = Experiment(config)
    folder = tmp_path_factory.mktemp("half") / "run"
    experiment.run(folder, verbose=0)
    keras.config.set_dtype_policy("float32")
    return folder, experiment.network


def test_a_network_trained_in_half_precision_is_saved_saved_in_float32(half_run):
    folder, trained = half_run
    x = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype("float32")
    loaded = keras.saving.load_model(folder / "model.keras")
    assert set(_dtypes(loaded).values()) == {"float32"}
    single = loaded(x).numpy()
    half = trained(x).numpy()
    assert 0 < np.abs(single - half).max() < 0.1  # the same weights, other rounding
    with saved_in_float32(trained):
        np.testing.assert_array_equal(trained(x).numpy(), single)
    exported = tf.saved_model.load(str(folder / "saved_model"))
    np.testing.assert_allclose(exported.serve(x).numpy(), single, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_loaded_network_trains_in_the_precision_that_was_asked_for(half_run, precision):
    config = TrainConfig(init_from=str(half_run[0]), epochs=1, precision=precision)
    network = Experiment(config).network
    half = "bfloat16" in _graph_dtypes(network, tf.zeros([2, 8, 8, 1]))
    assert half == (precision == "mixed_bfloat16")


@pytest.mark.parametrize("precision", HALF)
def test_attacks_and_evaluation_see_a_half_precision_network_in_float32(precision):
    network = soar_tf.networks.mlp(width=0.1)
    digits = soar_tf.datasets.load("digits")["test"].take(40)
    attacked = (digits.float_images(), digits.labels, ["pgd5:epsilon=0.05"])
    logits_fn = soar_tf.attacks.as_logits_fn(network)
    single, result = logits_fn(attacked[0]).numpy(), soar_tf.evaluate(network, *attacked, keep=40)
    set_precision(network, precision)
    assert np.abs(network(attacked[0]).numpy() - single).max() > 0
    np.testing.assert_array_equal(logits_fn(attacked[0]).numpy(), single)
    again = soar_tf.evaluate(network, *attacked, keep=40)
    assert again.kept.keys() == result.kept.keys() and len(result.kept) > 0
    for position, image in result.kept.items():
        np.testing.assert_array_equal(again.kept[position], image)
