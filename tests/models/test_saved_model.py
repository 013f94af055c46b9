"""`soar_tf.export`: what a SavedModel computes."""

import keras
import numpy as np
import tensorflow as tf

import soar_tf


def test_layers_that_are_random_in_training_are_not_in_the_export(tmp_path):
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.RandomFlip(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    soar_tf.export(network, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    x = np.random.default_rng(0).uniform(size=(16, 6, 6, 1)).astype("float32")
    weights, bias = network.get_weights()[-2:]
    np.testing.assert_allclose(loaded.serve(x), x.reshape(16, 36) @ weights + bias, atol=1e-5)
