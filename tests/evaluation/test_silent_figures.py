"""Ordinary situations in which a figure would be wrong without a word, on one small network.

Dense(64, relu)-Dense(10) on digits, 30 epochs of Adam on 256 images: about 97 % clean, and 25 to
40 % of 60 test images under PGD-20 at 0.15. Each test says what a wrapped network must be told as.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import attacks, networks
from soar_tf.errors import InputError
from soar_tf.models import loading

L = keras.layers
PGD20 = ["pgd20:epsilon=0.15"]
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def data(digits):
    test = digits["test"].take(60)
    return test.float_images(), test.labels


@pytest.fixture(scope="module")
def net(digits):
    keras.utils.set_random_seed(0)
    train = digits["train"].take(256)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Flatten(), L.Dense(64, "relu"), L.Dense(10)]
    )
    model.compile("adam", CROSS_ENTROPY)
    model.fit(train.float_images(), train.labels, epochs=30, verbose=0)
    return model


@pytest.fixture(scope="module")
def truth(net, data):
    result = soar_tf.evaluate(net, *data, PGD20)
    assert result.clean_accuracy > 0.93 and 0.15 < result.worst_case_accuracy < 0.45
    assert result.findings == ()
    return result


def behind(net, *layers):
    return keras.Sequential([keras.Input((8, 8, 1)), *layers, net])


def test_a_radius_is_a_distance_in_the_units_of_its_bounds(net, data, truth):
    scaled = behind(net, L.Rescaling(1 / 255))
    with pytest.raises(InputError, match="`epsilon` must be 0 or at least"):
        attacks.PGD(epsilon=0.15, bounds=(0, 255))
    attack = attacks.PGD(epsilon=0.15 * 255, steps=20, bounds=(0, 255))
    x_adv = attack(scaled, 255 * data[0], data[1])
    robust = float((np.argmax(scaled(x_adv), axis=1) == data[1]).mean())
    assert abs(robust - truth.worst_case_accuracy) < 0.1


def test_a_saved_model_of_integers(net, data, truth, tmp_path):
    class Served(tf.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.uint8)])
        def serve(self, x):
            return self.net(tf.cast(x, tf.float32) / 255)

    served = Served()
    tf.saved_model.save(served, str(tmp_path / "m"), signatures={"serving_default": served.serve})
    with pytest.raises(InputError, match="takes uint8 pixels"):
        loading.load(str(tmp_path / "m"))
    loaded = loading.load(str(tmp_path / "m"), pixel_range=255)
    result = soar_tf.evaluate(loaded.logits_fn, *data, ["fgsm:epsilon=0.15"])
    assert abs(result.clean_accuracy - truth.clean_accuracy) < 0.02
    assert [finding.name for finding in result.findings] == ["no_gradient"]


HIDDEN = {
    "numpy_function": lambda net: (
        lambda x: tf.ensure_shape(
            tf.numpy_function(lambda a: net(a).numpy(), [x], tf.float32), [None, 10]
        )
    ),
    "stop_gradient": lambda net: lambda x: tf.stop_gradient(net(x)),
    "round": lambda net: lambda x: net(tf.round(255 * x) / 255),
}


@pytest.mark.parametrize("name", ["stop_gradient", "round"])
def test_without_a_gradient_the_adaptive_attack_finds_what_plain_ones_find(name, net, data, truth):
    result = soar_tf.evaluate(HIDDEN[name](net), *data, PGD20)
    assert [finding.name for finding in result.findings] == ["no_gradient"]
    assert result.attacks[0].robust_accuracy == pytest.approx(result.clean_accuracy, abs=0.05)
    assert result.worst_case_accuracy <= truth.worst_case_accuracy + 0.05


def test_foreign_code_is_told(net, data):
    result = soar_tf.evaluate(HIDDEN["numpy_function"](net), *data, PGD20)
    assert [finding.name for finding in result.findings] == ["no_gradient"]
    assert result.worst_case_accuracy < result.clean_accuracy


class LastIsNotTheSoftmax(keras.Model):
    def __init__(self, net):
        super().__init__()
        self.softmax, self.net = L.Softmax(), net

    def call(self, x, training=None):
        return self.softmax(self.net(x))


def heads(net):
    inputs = keras.Input((8, 8, 1))
    two = [L.Softmax()(net(inputs)) for _ in range(2)]
    logits = net(inputs)
    return {
        "average of two softmax networks": keras.Model(inputs, L.Average()(two)),
        "tf.nn.softmax": keras.Sequential(
            [keras.Input((8, 8, 1)), L.Flatten(), L.Dense(10, activation=tf.nn.softmax)]
        ),
        "keras.ops.softmax": keras.Model(inputs, keras.ops.softmax(logits)),
        "subclassed": LastIsNotTheSoftmax(net),
        "sigmoids": keras.Model(inputs, L.Activation("sigmoid")(logits)),
        "one unit": keras.Model(inputs, L.Dense(1)(logits)),
        "a map": keras.Model(inputs, L.Reshape((1, 1, 10))(logits)),
    }


HEADS = (
    *("average of two softmax networks", "tf.nn.softmax", "keras.ops.softmax", "subclassed"),
    *("sigmoids", "one unit", "a map"),
)


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_are_no_logits_are_refused(name, net, data):
    with pytest.raises(InputError, match="logits|sigmoid"):
        soar_tf.evaluate(heads(net)[name], *data, PGD20)


def test_a_gate_is_no_softmax(net, data):
    inputs = keras.Input((8, 8, 1))
    logits = net(inputs)
    gated = keras.Model(inputs, logits * keras.ops.sigmoid(logits))
    assert soar_tf.probe(gated, *data).names == ()


def test_an_operation_of_a_softmax_can_be_taken_off(net, data):
    inputs = keras.Input((8, 8, 1))
    whole = keras.Model(inputs, keras.ops.softmax(net(inputs)))
    logits = networks.to_logits(whole)
    np.testing.assert_allclose(logits(data[0]), net(data[0]), rtol=1e-6)


def test_half_of_the_labels_ignored_is_a_weight_of_zero(net, data):
    """Keras's loss with ignore_class=-1 is the mean over what is left; ours takes weights."""
    x, y = data
    kept = np.arange(len(y)) % 2 == 0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model = soar_tf.RobustModel(net, "standard")
    with pytest.raises(InputError, match="must not ignore a class"):
        model.compile("sgd", loss=loss)
        model.fit(x, np.where(kept, y, -1), verbose=0)
    model.compile("sgd", loss=CROSS_ENTROPY)
    weights = np.where(kept, 2.0, 0.0)  # half of the examples, each twice
    found = model.evaluate(x, y, sample_weight=weights, batch_size=60, verbose=0)
    expected = float(CROSS_ENTROPY(y[kept], net(x[kept])))
    assert np.ravel(found)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["trades", "mart", "jacobian", "standard"])
@pytest.mark.parametrize("shape", [(2, 2, 5), (4, 5), (1, 20)])
def test_outputs_of_more_than_two_dimensions_are_refused(method, shape, data):
    keras.utils.set_random_seed(0)
    model = soar_tf.RobustModel(
        keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(20), L.Reshape(shape)]),
        method,
    )
    model.compile("sgd", loss=CROSS_ENTROPY)
    labels = np.zeros((60, *shape[:-1]), "int64")
    with pytest.raises(InputError):
        model.fit(data[0], labels, verbose=0)


@pytest.mark.parametrize(
    "layers",
    [
        (L.Rescaling(255.0), L.Rescaling(1 / 127.5, offset=-1.0)),
        (L.Rescaling(255.0), L.Rescaling(1 / 255)),
    ],
    ids=["-1 to 1", "0 to 1"],
)
def test_scaling_back_and_forth_is_not_blamed(layers, net, data):
    assert "scale" not in soar_tf.probe(behind(net, *layers), *data).names


@pytest.mark.parametrize("kind", ["Rescaling", "operation", "function"])
def test_a_network_of_0_to_255_is_refused_and_can_be_wrapped(kind, net, data, truth):
    inputs = keras.Input((8, 8, 1))
    scaled = {
        "Rescaling": lambda: behind(net, L.Rescaling(1 / 255)),
        "operation": lambda: keras.Model(inputs, net(inputs / 255.0)),
        "function": lambda: behind(net, L.Lambda(lambda x: x / 255.0)),
    }[kind]()
    with pytest.raises(InputError, match="is right on .* with their pixels times 255"):
        soar_tf.evaluate(scaled, *data, PGD20)
    result = soar_tf.evaluate(networks.with_pixel_range(scaled, 255), *data, PGD20)
    assert result.clean_accuracy == truth.clean_accuracy
    assert abs(result.worst_case_accuracy - truth.worst_case_accuracy) < 0.05
