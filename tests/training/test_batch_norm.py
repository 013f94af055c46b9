"""The warning of moving statistics that lag behind."""

import warnings

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.training import batch_norm


def _network(momentum):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(momentum=momentum),
            keras.layers.Dense(3),
        ]
    )


def _fit(network, images, epochs=1):
    model = soar_tf.RobustModel(network, "standard")
    model.compile("sgd")
    model.fit(*images, batch_size=4, epochs=epochs, verbose=0)


def test_few_steps_with_a_large_momentum(images):
    # 3 steps: 0.999^3 = 0.997 of the initial statistics are left.
    with pytest.warns(
        UserWarning,
        match=r"After 3 steps, .* 1 BatchNorm layers \(momentum 0.999\)"
        r" are still 100 % those of a new network",
    ):
        _fit(_network(0.999), images)


def test_no_word_where_the_statistics_have_arrived(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        _fit(_network(0.3), images)  # 0.3^3 = 0.027


def test_no_word_about_a_network_that_was_trained_before(images):
    network = _network(0.999)
    network.layers[2].moving_mean.assign(np.ones(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        _fit(network, images)


def test_how_much_is_left():
    layers = [keras.layers.BatchNormalization(momentum=m) for m in (0.9, 0.99)]
    assert "1 BatchNorm layers (momentum 0.99) are still 61 %" in batch_norm.lag(layers, 50)
    assert "such as layer.momentum = 0.9" in batch_norm.lag(layers, 50)
    assert batch_norm.lag(layers, 300) is None  # 0.99^300 = 0.05
    assert batch_norm.lag([], 0) is None
