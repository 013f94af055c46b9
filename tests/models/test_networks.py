"""Networks: sizes, shapes, softmax heads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError
from soar_tf.models import networks
from soar_tf.ops import gradients


def test_cnn4_is_the_papers():
    network = networks.cnn4()
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [32, 32, 64, 64]
    # 896 + 9,248 + 18,496 + 36,928 + (5 * 5 * 64 + 1) * 512 + 513 * 10
    assert network.count_params() == 890410


def test_cnn4_without_a_hidden_layer():
    # 32 - 2 - 2 = 28, pooled 14, - 2 - 2 = 10, pooled 5: 5 * 5 * 64 inputs of the logits.
    network = networks.cnn4(dense_units=0)
    convolutions = 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 32 + 32 + 64 + 64
    assert network.count_params() == convolutions + (5 * 5 * 64 + 1) * 10
    with pytest.raises(InputError, match="`dense_units` must be >= 0. Received: -1"):
        networks.cnn4(dense_units=-1)


@pytest.mark.parametrize("name", networks.ALL_OBJECTS)
@pytest.mark.parametrize(("shape", "classes"), [((32, 32, 3), 10), ((16, 20, 1), 2)])
def test_every_network_takes_the_shape_and_gives_logits(name, shape, classes):
    network = networks.get(name, input_shape=shape, num_classes=classes, width="0.125")
    outputs = network.predict(np.random.default_rng(0).random((3, *shape)), verbose=0)
    assert outputs.shape == (3, classes)
    assert networks.softmax_head(network) is None
    full = networks.get(name, input_shape=shape, num_classes=classes)
    assert full.count_params() > network.count_params()


def test_the_normalisation_is_inside():
    first = networks.mlp((1, 1, 1), 2).get_layer("normalize")
    np.testing.assert_allclose(
        first(np.array([[[[0.0]]], [[[0.5]]], [[[1.0]]]]))[:, 0, 0, 0], [-2, 0, 2]
    )


def standardized(images):
    """Written apart from the package, in float64."""
    result = []
    for image in np.asarray(images, np.float64):
        d = image.size
        mean = image.sum() / d
        deviation = np.sqrt(((image - mean) ** 2).sum() / (d - 1))
        result.append((image - mean) / max(deviation, 1 / np.sqrt(d)))
    return np.stack(result)


def test_standardize_is_per_image():
    x = np.random.default_rng(0).random((3, 4, 5, 2))
    x[1] = 0.25 + 1e-3 * x[1]  # below the limit of the deviation, 1 / sqrt(40)
    x[2] = 0.7  # no contrast at all
    found = np.asarray(networks.standardize(x))
    np.testing.assert_allclose(found, standardized(x), atol=1e-12)
    assert np.abs(found[2]).max() < 1e-12 and found[0].std(ddof=1) == pytest.approx(1)
    assert np.abs(found[1]).max() < 0.01


def test_standardize_has_exact_second_derivatives():
    """Those of nested tapes, beside float64 differences of the float64 formula's gradient."""
    generator = np.random.default_rng(1)
    x, v, weights = (generator.random((2, 3, 3, 2)) for _ in range(3))

    def value(x):
        return tf.reduce_sum(weights * tf.sin(networks.standardize(x)), axis=(1, 2, 3))

    product = gradients.hvp_exact(value, tf.constant(x), tf.constant(v))
    h, steps = 1e-5, []
    for index in np.ndindex(x.shape[1:]):
        sides = []
        for a in (-1, 1):
            for b in (-1, 1):
                moved = x + a * h * 10 * v
                moved[(slice(None), *index)] += b * h * 10
                terms = weights * np.sin(standardized(moved))
                sides.append(a * b * terms.sum(axis=(1, 2, 3)))
        steps.append(sum(sides) / (4 * (h * 10) ** 2))
    expected = np.stack(steps, axis=1).reshape(2, 3, 3, 2)
    np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("name", ["cnn4", "resnet18", "preact_resnet18"])
def test_per_image_networks_are_of_keras_alone(name, tmp_path):
    arguments = {"input_shape": (16, 16, 3), "num_classes": 3, "width": 0.125}
    network = networks.get(name, **arguments, normalization="per_image")
    for operation in network.operations:
        assert type(operation).__module__.startswith("keras."), operation
    x = np.random.default_rng(2).random((4, 16, 16, 3)).astype("float32")
    # An affine change of an image's pixels leaves its standardised image, and so the logits.
    logits = network(x).numpy()
    np.testing.assert_allclose(network(0.5 * x + 0.2).numpy(), logits, atol=1e-4)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(x).numpy(), logits)
    soar_tf.export(network, tmp_path / "exported")
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(x), logits, atol=1e-5)
    compiled = tf.function(network, jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(x)), logits, atol=1e-4)
    assert soar_tf.check_second_order(network, quick=True).ok
    with pytest.raises(InputError, match="Unknown `normalization` 'per_imag'"):
        networks.get(name, **arguments, normalization="per_imag")


def _heads():
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(3)(inputs)
    inner = keras.Model(inputs, keras.layers.Dense(3, "softmax")(inputs))
    outer = keras.Input((4,))
    return {
        "dense": keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]),
        "activation": keras.Model(inputs, keras.layers.Activation("softmax")(dense)),
        "softmax layer": keras.Model(inputs, keras.layers.Softmax()(dense)),
        "nested": keras.Model(outer, inner(outer)),
        "nested sequential": keras.Sequential([keras.Input((4,)), inner]),
    }


@pytest.mark.parametrize("kind", list(_heads()))
def test_to_logits_takes_the_softmax_off(kind):
    network = _heads()[kind]
    assert networks.softmax_head(network) is not None
    logits = networks.to_logits(network)
    assert networks.softmax_head(logits) is None
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    z = logits.predict(x, verbose=0)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, network.predict(x, verbose=0), atol=1e-6)
    assert networks.to_logits(logits) is logits


def test_refusals():
    sigmoid = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    with pytest.raises(InputError, match="ends in a sigmoid"):
        networks.to_logits(sigmoid)
    first, second = keras.Input((4,)), keras.Input((4,))
    two = keras.Model([first, second], keras.layers.Add()([first, second]))
    with pytest.raises(InputError, match="Received: 2 inputs and 1 outputs"):
        networks.check_gives_logits(two)
    with pytest.raises(InputError, match="at least 16x16"):
        networks.cnn4((8, 8, 1))
    with pytest.raises(InputError, match="`num_classes` must be >= 2"):
        networks.mlp(num_classes=1)
    with pytest.raises(InputError, match="Did you mean 'resnet18'"):
        networks.get("resnet", input_shape=(32, 32, 3), num_classes=10)
