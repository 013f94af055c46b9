"""A linear classifier whose accuracy under attack is known in closed form."""

import keras
import numpy as np
import pytest


@keras.saving.register_keras_serializable(package="soar_tf_tests")
class Traced(keras.layers.Layer):
    """Passes its input on and counts how often Python passes through it."""

    count = 0

    def call(self, inputs):
        Traced.count += 1
        return inputs


@pytest.fixture
def traces():
    Traced.count = 0
    return lambda: Traced.count


@pytest.fixture
def threshold_data():
    """Ten images of 4 equal pixels from 0.05 to 0.95; the class is 1 above 0.5."""
    levels = np.linspace(0.05, 0.95, 10, dtype="float32")
    x = np.broadcast_to(levels[:, None, None, None], (10, 2, 2, 1)).copy()
    return x, (levels > 0.5).astype("int64")


@pytest.fixture
def linear_model():
    """A linear model, compiled; by default it splits at a mean pixel of `split`.

    The logits are -m and m with m = slope * (mean - split): an linf attack moves the mean by
    epsilon, so an example withstands it exactly if |mean - split| > epsilon.
    """

    def build(split=0.5, slope=8.0, learning_rate=0.0, **kwargs):
        model = keras.Sequential(
            [keras.Input((2, 2, 1)), Traced(), keras.layers.Flatten(), keras.layers.Dense(2)]
        )
        set_split(model, split, slope)
        model.compile(
            keras.optimizers.SGD(learning_rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            **kwargs,
        )
        return model

    return build


def set_split(model, split, slope=8.0):
    kernel = np.tile(np.array([[-slope, slope]], "float32") / 4, (4, 1))
    model.layers[-1].set_weights([kernel, np.array([slope * split, -slope * split], "float32")])


class Script(keras.callbacks.Callback):
    """Sets the model's split at the end of each epoch: a scripted training."""

    def __init__(self, splits):
        super().__init__()
        self.splits = splits

    def on_epoch_end(self, epoch, logs=None):
        set_split(self.model, self.splits[epoch])


@pytest.fixture
def script():
    return Script
