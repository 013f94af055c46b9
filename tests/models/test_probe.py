"""The probe: what a network does, seen on a few images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError
from soar_tf.models import probe

WEIGHTS = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")


def images(count=40, seed=1):
    return np.random.default_rng(seed).uniform(size=(count, 4, 4, 1)).astype("float32")


def linear(x):
    return tf.reshape(x, [-1, 16]) @ WEIGHTS


def labels(x):
    return np.argmax(linear(x), axis=1)


def names(logits_fn, x=None, y="right", **arguments):
    x = images() if x is None else x
    y = labels(x) if isinstance(y, str) else y
    return probe.examine(logits_fn, x, y, **arguments).names


HONEST = {
    "linear": linear,
    "small logits": lambda x: 0.01 * linear(x),
    "log-probabilities": lambda x: tf.nn.log_softmax(linear(x)),
    "gated": lambda x: linear(x) * tf.sigmoid(tf.reduce_sum(x, [1, 2])),
    "positive": lambda x: tf.nn.softplus(linear(x)) + 3.0,
    "deep": lambda x: tf.tanh(linear(tf.nn.relu(x - 0.3))) @ WEIGHTS[:5],
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_networks_pass(name):
    assert names(HONEST[name]) == ()


def test_a_constant_network_is_not_called_rounded():
    assert "rounded" not in names(lambda x: tf.zeros([tf.shape(x)[0], 5]) + 0 * linear(x))


def test_small_positive_logits_of_a_new_network_are_no_sigmoids():
    def new(x):
        return 0.1 + 0.05 * tf.sigmoid(linear(x))

    assert "sigmoid" not in names(new)
    assert "sigmoid" in names(lambda x: 5 * new(x))  # the same, up to 0.75


UNUSABLE = {
    "probabilities": lambda x: tf.nn.softmax(linear(x)),
    "probabilities of two": lambda x: 0.5 * (tf.nn.softmax(linear(x)) + tf.nn.softmax(linear(-x))),
    "sigmoid": lambda x: tf.sigmoid(linear(x)),
    "one_output": lambda x: linear(x)[:, :1],
    "one_output without axis": lambda x: linear(x)[:, 0],
    "shape": lambda x: tf.tile(linear(x)[:, None, None], [1, 4, 4, 1]),
    "several_outputs": lambda x: {"a": linear(x), "b": linear(x)},
    "batch_dependent": lambda x: linear(x - tf.reduce_mean(x, axis=0)),
    "not_finite": lambda x: linear(x) / 0.0,
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_networks_are_refused(name):
    found = probe.examine(UNUSABLE[name], images(), labels(images()))
    assert found.names[0] == name.split()[0]
    with pytest.raises(InputError):
        found.raise_if_unusable()


@tf.custom_gradient
def flipped(x):
    return tf.identity(x), lambda slope: -slope


DOUBTFUL = {
    "random": lambda x: linear(x + tf.random.normal(tf.shape(x))),
    "clipped": lambda x: tf.clip_by_value(linear(x), -0.5, 0.5),
    "rounded": lambda x: tf.round(linear(x)),
    "no_gradient": lambda x: linear(tf.round(255 * x) / 255),
    "no_gradient of a stop": lambda x: tf.stop_gradient(linear(x)),
    "no_gradient of NumPy": lambda x: tf.ensure_shape(
        tf.numpy_function(lambda a: a.reshape(-1, 16) @ WEIGHTS, [x], tf.float32), [None, 5]
    ),
    "zero_gradient": lambda x: 150 * linear(x),
    "misleading_gradient": lambda x: linear(flipped(x)),
    "tiny": lambda x: 1e-9 * linear(x),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_doubtful_networks_are_told(name):
    found = probe.examine(DOUBTFUL[name], images(), labels(images()))
    assert name.split()[0] in found.names
    found.raise_if_unusable()
    with pytest.raises(InputError):
        found.raise_if_unusable(name.split()[0])


@pytest.mark.parametrize("factor", [255.0, 1 / 255])
def test_another_scale_is_told_with_its_accuracy(factor):
    bias = 0.4 * factor * WEIGHTS.sum(axis=0)

    def scaled(x):
        return tf.reshape(x, [-1, 16]) @ WEIGHTS - bias

    x = images()
    y = np.argmax(scaled(factor * x), axis=1)
    (finding,) = (f for f in probe.examine(scaled, x, y).findings if f.name == "scale")
    assert finding.unusable and "100 %" in finding.message


def test_a_rescaling_layer_before_any_weight_is_told():
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    logits_fn = soar_tf.attacks.as_logits_fn(network)
    assert names(logits_fn, y=None, network=network) == ()
    assert "scale" in names(logits_fn, network=network)
    wrapped = soar_tf.networks.with_pixel_range(network, 255)
    assert "scale" not in names(soar_tf.attacks.as_logits_fn(wrapped), network=wrapped)


def test_integer_inputs_are_refused_and_can_be_wrapped():
    inputs = keras.Input((4, 4, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(keras.ops.cast(inputs, "float32"))
    network = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(x)))
    logits_fn = soar_tf.attacks.as_logits_fn(network)
    assert names(logits_fn, network=network) == ("integer_input",)
    wrapped = soar_tf.networks.with_pixel_range(network, 255)
    pixels = images()
    expected = network((pixels * 255).round().astype("uint8"))
    np.testing.assert_allclose(wrapped(pixels), expected, rtol=1e-5)


def test_a_fixed_batch_size_is_refused():
    inputs = keras.Input(batch_shape=(8, 4, 4, 1))
    network = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    logits_fn = soar_tf.attacks.as_logits_fn(network)
    assert names(logits_fn, network=network) == ("fixed_batch",)


def test_a_failing_network_is_an_error_of_one_sentence():
    with pytest.raises(InputError, match=r"`network` fails on 16 images of shape \(4, 4, 1\)"):
        names(lambda x: tf.reshape(x, [-1, 7]))


def test_labels_that_the_network_has_no_class_for_leave_out_the_gradient():
    assert names(linear, y=np.full(40, 9)) == ()
