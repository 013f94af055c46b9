"""What `fit` says when a penalty harms the network, and the values that it proposes."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.ops import curvature

CLASSES = 3


@pytest.fixture
def data():
    """Images whose class is the quarter that is bright: a linear layer tells them apart."""
    y = np.arange(96) % CLASSES
    x = np.random.default_rng(0).uniform(0, 0.3, size=(96, 6, 6, 1)).astype("float32")
    for row, label in enumerate(y):
        x[row, 2 * label : 2 * label + 2] += 0.5
    return x, y


@pytest.fixture
def trained(data):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "tanh"),
            keras.layers.Dense(CLASSES),
        ]
    )
    model = soar_tf.RobustModel(network, "standard")
    model.compile(keras.optimizers.Adam(0.02), metrics=["accuracy"])
    assert model.fit(*data, epochs=20, verbose=0).history["accuracy"][-1] == 1.0
    return network


def messages(network, data, rate=1e-4, epochs=1, as_dataset=False, **arguments):
    model = soar_tf.SOARModel(network, **arguments)
    model.compile(keras.optimizers.SGD(rate))
    given = data
    if as_dataset:
        given = (tf.data.Dataset.from_tensor_slices(data).batch(32),)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(*given, epochs=epochs, verbose=0)
    return [str(warning.message) for warning in caught if "penalty" in str(warning.message)]


def test_a_harmless_penalty_says_nothing(trained, data):
    assert messages(trained, data, epsilon=0.05) == []


@pytest.mark.parametrize("as_dataset", [False, True])
def test_lost_clean_accuracy_is_told_once(trained, data, as_dataset):
    found = messages(
        trained, data, rate=5.0, epochs=3, as_dataset=as_dataset, epsilon=0.5, lambda_=50.0
    )
    (lost,) = [message for message in found if "Clean accuracy" in message]
    assert "on 96 images fell from 100 to" in lost or "on 32 images fell from 100 to" in lost
    assert "soar_tf.methods.propose proposes lambda_=" in lost


def test_a_penalty_that_is_all_clip_is_told(trained, data):
    (found,) = messages(trained, data, epsilon=0.05, norm_clip=1e-4)
    assert found.startswith("The penalty's norm is at its clip for 100 % of the examples")


def test_methods_without_a_penalty_are_not_watched(trained, data):
    model = soar_tf.RobustModel(trained, soar_tf.methods.Adversarial(epsilon=0.3, steps=1))
    model.compile(keras.optimizers.SGD(50.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(*data, verbose=0)


def test_callbacks_of_every_form_are_called(trained, data):
    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1

    model = soar_tf.SOARModel(trained, epsilon=0.05)
    model.compile("sgd")
    count = Count()
    for callbacks in ([count], count, keras.callbacks.CallbackList([count], model=model)):
        model.fit(*data, verbose=0, callbacks=callbacks)
    model.fit(*data, 32, 1, 0, [count])
    assert count.epochs == 4


def test_the_proposal_keeps_the_papers_largest_penalty(trained, data):
    large = [np.repeat(np.repeat(data[0], 8, axis=1), 8, axis=2), data[1]]
    network = keras.Sequential(
        [keras.Input((48, 48, 1)), keras.layers.AveragePooling2D(8), trained]
    )
    found = soar_tf.methods.propose(network, *large, epsilon=0.1)
    assert found.factor == pytest.approx((48 * 48 * 0.01 + 1) / 2)
    assert found.norm_clip == 10.0  # this network bends less than the paper's
    paper = 0.5 * 10 * (32 * 32 * 3 * (8 / 255) ** 2 + 1) / 2
    assert found.lambda_ * found.factor * found.norm_clip == pytest.approx(paper, rel=0.05)
    assert soar_tf.methods.SOAR(**found.arguments).lambda_ == found.lambda_


def test_the_papers_setting_keeps_the_papers_constants():
    x = np.random.default_rng(0).uniform(size=(8, 32, 32, 3)).astype("float32")
    network = soar_tf.networks.cnn2(input_shape=(32, 32, 3))
    head = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)][-1]
    head.kernel.assign(head.kernel * 0.01)
    found = soar_tf.methods.propose(network, x, np.arange(8))
    assert (found.lambda_, found.norm_clip, found.images) == (0.5, 10.0, 8)


def test_a_steep_network_gets_a_wider_clip(trained, data):
    trained.layers[-1].kernel.assign(trained.layers[-1].kernel * 1e4)
    x, y = data
    found = soar_tf.methods.propose(trained, x, (y + 1) % CLASSES, epsilon=0.15)
    assert found.norm_clip > 100
    assert found.lambda_ * found.factor * found.norm_clip == pytest.approx(10.06, rel=0.06)


def test_the_norms_are_those_that_training_logs(trained, data):
    """With h fixed by its minimum the logged norm and the proposal's differ by noise only."""
    assert curvature.bound_factor(36, 0.1) == pytest.approx((36 * 0.01 + 1) / 2)
    found = soar_tf.methods.propose(trained, *data, epsilon=0.1, images=96)
    model = soar_tf.SOARModel(trained, epsilon=0.1)
    model.compile(keras.optimizers.SGD(0.0))
    logged = model.fit(*data, batch_size=96, verbose=0).history["curvature_norm"][0]
    assert 0.2 < found.median_norm / logged < 5
