"""What `fit` refuses and warns of before its first step."""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError

METHODS = {"standard": {}, "adversarial": {"epsilon": 0.1, "steps": 1}, "soar": {"epsilon": 0.1}}


def data(count=40):
    x = np.random.default_rng(0).uniform(size=(count, 4, 4, 1)).astype("float32")
    return x, np.arange(count) % 3


def network(*layers, head=None):
    return keras.Sequential(
        [keras.Input((4, 4, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(3, head)]
    )


def fit(net, method="adversarial", x=None, y="right", loss=None, **arguments):
    model = soar_tf.RobustModel(net, soar_tf.methods.get(method, **METHODS[method]))
    model.compile(keras.optimizers.SGD(0.01), loss=loss)
    known_x, known_y = data()
    x = known_x if x is None else x
    y = known_y if isinstance(y, str) else y
    return model.fit(x, y, batch_size=20, verbose=0, **arguments).history


class AlwaysDrops(keras.layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class BatchStatistics(keras.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=True, mask=mask)


class Rounded(keras.layers.Layer):
    def call(self, x):
        return tf.round(255 * x) / 255


class Gated(keras.Model):
    """Its last attribute is a sigmoid, and its outputs are logits."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.logits = keras.layers.Dense(3)
        self.gate = keras.layers.Dense(3, "sigmoid")

    def call(self, x, training=None):
        x = self.flatten(x)
        return self.logits(x) * self.gate(x)


class Averaged(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.members = [network(head="softmax") for _ in range(2)]

    def call(self, x, training=None):
        return 0.5 * (self.members[0](x) + self.members[1](x))


def built(model):
    model(data()[0][:1])
    return model


def test_a_network_that_drops_in_inference():
    with pytest.raises(InputError, match="random in inference"):
        fit(network(AlwaysDrops(0.5)), "soar")
    with pytest.warns(UserWarning, match="random in inference"):
        fit(network(AlwaysDrops(0.5)), "adversarial")


@pytest.mark.parametrize("method", METHODS)
def test_batch_statistics_in_inference(method):
    with pytest.raises(InputError, match="change with the rest of their batch"):
        fit(network(BatchStatistics()), method)


def test_no_gradient_to_train_along():
    with pytest.raises(InputError, match="has no gradient by the image"):
        fit(network(Rounded()), "adversarial")
    fit(network(Rounded()), "standard")


def test_probabilities_of_any_make():
    with pytest.raises(InputError, match="its outputs are probabilities"):
        fit(built(Averaged()))


@pytest.mark.parametrize("method", METHODS)
def test_a_subclassed_gate_is_trained(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(fit(built(Gated()), method)["loss"][0])


WRONG_LABELS = {
    "none": (None, "Received: None"),
    "fractions": (np.full(40, 0.5), "whole numbers, one class an image. Received: 0.5"),
    "negative": (np.arange(40) % 3 - 1, "labels from -1 to 1"),
    "too large": (np.arange(40) % 4, "from 0 to 2, the network's classes"),
    "text": (np.array(["cat"] * 40), "Received: 'cat'"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_that_make_no_sense(name):
    y, message = WRONG_LABELS[name]
    with pytest.raises(InputError, match=message):
        fit(network(), y=y)


def test_one_hot_labels_give_the_loss_of_whole_numbers():
    y = data()[1]
    losses = []
    for labels in (y, y[:, None], np.eye(3, dtype="float32")[y]):
        keras.utils.set_random_seed(0)
        losses.append(fit(network(), y=labels, shuffle=False)["loss"][0])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_a_dictionary_of_one_input_is_that_input():
    x, y = data()
    losses = []
    for images in (x, {"images": x}):
        keras.utils.set_random_seed(0)
        batches = tf.data.Dataset.from_tensor_slices((images, y)).batch(20)
        model = soar_tf.RobustModel(network(), "standard")
        model.compile("sgd")
        losses.append(model.fit(batches, verbose=0).history["loss"][0])
    assert losses[0] == losses[1]
    two = tf.data.Dataset.from_tensor_slices(({"a": x, "b": x}, y)).batch(20)
    with pytest.raises(InputError, match="a dictionary of a, b"):
        model.fit(two, verbose=0)


def test_validation_pixels():
    x, y = data()
    with pytest.raises(InputError, match="`validation_data`"):
        fit(network(), validation_data=(255 * x, y))


CROSS_ENTROPY = keras.losses.sparse_categorical_crossentropy


class Doubled(keras.losses.SparseCategoricalCrossentropy):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return 2 * super().__call__(y_true, y_pred, sample_weight)


UNSUPPORTED = {
    "ignore_class=-1": keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    ),
    "reduction='sum'": keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum"
    ),
    "reduction='mean_with_sample_weight'": keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    ),
    "axis=0": keras.losses.CategoricalCrossentropy(from_logits=True, axis=0),
    "a class with a `__call__`": Doubled(from_logits=True),
    "without from_logits=True": CROSS_ENTROPY,
    "CategoricalFocalCrossentropy without": keras.losses.CategoricalFocalCrossentropy(),
    "binary_crossentropy without": "binary_crossentropy",
    "dict": {"dense": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
    "list": [keras.losses.SparseCategoricalCrossentropy(from_logits=True)],
}


@pytest.mark.parametrize("received", UNSUPPORTED)
def test_losses_that_a_train_step_cannot_honour(received):
    with pytest.raises(InputError, match=f"Received: .*{received}"):
        fit(network(), loss=UNSUPPORTED[received])
    fit(network(), loss=functools.partial(CROSS_ENTROPY, from_logits=True))


HONOURED = {
    "label smoothing": (
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        {},
    ),
    "focal": (keras.losses.CategoricalFocalCrossentropy(alpha=0.7, gamma=1, from_logits=True), {}),
    "binary": (keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2), {}),
    "hinge": ("categorical_hinge", {}),
    "mse": ("mse", {}),
    "sample_weight": (
        keras.losses.CategoricalCrossentropy(from_logits=True, reduction="mean"),
        {"sample_weight": np.linspace(0, 2, 40)},
    ),
    "class_weight": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        {"class_weight": {0: 1.0, 1: 5.0, 2: 0.0}},
    ),
}


@pytest.mark.parametrize("name", HONOURED)
def test_losses_and_weights_give_the_figures_of_keras(name):
    loss, arguments = HONOURED[name]
    x, y = data()
    found = []
    for wrap in (lambda net: net, lambda net: soar_tf.RobustModel(net, "standard")):
        keras.utils.set_random_seed(0)
        model = wrap(network())
        model.compile(keras.optimizers.SGD(0.1), loss, weighted_metrics=["accuracy"])
        history = model.fit(x, np.eye(3)[y], epochs=2, shuffle=False, verbose=0, **arguments)
        found.append([*history.history["loss"], *history.history["accuracy"]])
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_loss_weights():
    model = soar_tf.RobustModel(network(), "standard")
    with pytest.raises(InputError, match="`loss_weights`"):
        model.compile("sgd", loss_weights=[0.5])


def test_a_head_of_zeros_is_no_network_without_a_gradient():
    net = network()
    net.layers[-1].set_weights([np.zeros((16, 3)), np.zeros(3)])
    fit(net, "adversarial")


def test_regression_is_not_asked_for_logits():
    net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
    fit(net, "adversarial", y=np.linspace(0, 1, 40, dtype="float32")[:, None], loss="mse")


def test_one_hot_labels_are_validated_like_whole_numbers():
    x, y = data()
    found = []
    for labels in (y, np.eye(3, dtype="float32")[y]):
        keras.utils.set_random_seed(0)
        model = soar_tf.RobustModel(network(keras.layers.Dense(2, kernel_regularizer="l2")), "soar")
        model.compile("sgd")
        history = model.fit(x, labels, validation_data=(x, labels), shuffle=False, verbose=0)
        found.append(history.history["val_loss"][0])
        weights = np.linspace(0, 1, len(x))
        found.append(model.evaluate(x, labels, sample_weight=weights, verbose=0))
    np.testing.assert_allclose(found[:2], found[2:], rtol=1e-6)


def test_a_label_is_missing():
    x, y = data()
    with pytest.raises(InputError, match="a label for each of 40 images. Received: 39"):
        fit(network(), x=x, y=y[:-1])


def test_nothing_to_train():
    net = network()
    net.trainable = False
    with pytest.raises(InputError, match="must have weights to train"):
        fit(net)


@pytest.mark.parametrize("shape", [(3, 1), (1, 1, 3), ()])
def test_regression_of_other_than_two_dimensions_is_refused(shape):
    size = int(np.prod(shape))
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(size)(keras.layers.Flatten()(inputs))
    net = keras.Model(inputs, keras.layers.Reshape(shape)(outputs))
    with pytest.raises(InputError, match=r"must give outputs \[B, C\]"):
        fit(net, y=np.zeros((40, *shape), "float32"), loss="mse")
