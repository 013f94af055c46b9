"""Further members of each kind that the probe knows, over one small trained network.

A finding here is a kind, not the one network that it was first seen on. Every entry is named after
what it does; its finding, or that there is none, is what a reader of a figure must know.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf

L = keras.layers
WEIGHTS = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")


def images(count=40):
    return np.random.default_rng(1).uniform(size=(count, 4, 4, 1)).astype("float32")


def net(x):
    x = tf.reshape(x, [-1, 16])
    return tf.nn.relu(x @ WEIGHTS[:, :4] + 1.0) @ WEIGHTS[:4] + x @ WEIGHTS


def names(logits_fn):
    x = images()
    return soar_tf.probe(logits_fn, x, np.argmax(net(x), axis=1)).names


@tf.custom_gradient
def without_slope(x):
    return tf.identity(x), tf.zeros_like


def half_stopped(x, rows):
    return net(tf.concat([tf.stop_gradient(x[:, :rows]), x[:, rows:]], axis=1))


def in_png(x):
    def there_and_back(image):
        stored = tf.io.encode_png(tf.cast(tf.round(255 * image), tf.uint8))
        return tf.cast(tf.io.decode_png(stored), tf.float32) / 255

    return tf.map_fn(there_and_back, x, fn_output_signature=tf.TensorSpec([4, 4, 1], tf.float32))


def as_codes(x):
    codes = tf.one_hot(tf.cast(tf.round(4 * x), tf.int32), 5)
    return tf.reduce_sum(codes * tf.linspace(0.0, 1.0, 5), axis=-1)


class Discretized:
    layer = L.Discretization(bin_boundaries=[0.2, 0.4, 0.6, 0.8])

    def __call__(self, x):
        return net(tf.cast(self.layer(tf.reshape(x, [-1, 16])), tf.float32) / 4)


NO_GRADIENT = {
    "numpy_function": lambda x: tf.ensure_shape(
        tf.numpy_function(lambda a: net(a).numpy(), [x], tf.float32), [None, 5]
    ),
    "one-hot levels": lambda x: net(as_codes(x)),
    "sign": lambda x: net((tf.sign(x - 0.5) + 1) / 2),
    "comparison": lambda x: net(tf.where(x > 0.5, 1.0, 0.0)),
    "stop_gradient in the middle": lambda x: tf.stop_gradient(tf.nn.relu(net(x))) @ WEIGHTS[:5],
    "keras.ops.round": lambda x: net(keras.ops.round(255 * x) / 255),
    "keras.ops.floor": lambda x: net(keras.ops.floor(16 * x) / 16),
    "uint8": lambda x: net(tf.cast(tf.cast(255 * x, tf.uint8), tf.float32) / 255),
    "png": lambda x: net(in_png(x)),
    "Discretization": Discretized(),
    "gradient of zeros": lambda x: net(without_slope(x)),
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_no_gradient(name):
    assert "no_gradient" in names(NO_GRADIENT[name])


MISLEADING = {
    "stop_gradient before most rows": lambda x: half_stopped(x, 3),
    "stop_gradient before half of the rows": lambda x: half_stopped(x, 2),
    "a stopped member of an ensemble": lambda x: net(x) + tf.stop_gradient(3 * net(x[:, ::-1])),
    "rounding to 3 bits": lambda x: net(
        tf.quantization.fake_quant_with_min_max_args(x, 0.0, 1.0, 3)
    ),
    "a thin path beside a staircase": lambda x: 0.1 * net(x) + 0.9 * net(tf.round(4 * x) / 4),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_gradients_that_are_not_the_outputs_own(name):
    assert "misleading_gradient" in names(MISLEADING[name])


SHARES = {
    "temperature": lambda x: tf.nn.softmax(net(x) / 5),
    "per cent": lambda x: 100 * tf.nn.softmax(net(x)),
    "shifted": lambda x: 3 * tf.nn.softmax(net(x)) + 7,
    "2 p - 1": lambda x: 2 * tf.nn.softmax(net(x)) - 1,
    "sum of two": lambda x: tf.nn.softmax(net(x)) + tf.nn.softmax(2 * net(x)),
    "smoothed": lambda x: 0.9 * tf.nn.softmax(net(x)) + 0.02,
    "bfloat16": lambda x: tf.cast(tf.nn.softmax(tf.cast(net(x), tf.bfloat16)), tf.float32),
    "two of a sigmoid": lambda x: tf.stack(
        [tf.sigmoid(net(x)[:, 0]), tf.sigmoid(-net(x)[:, 0])], axis=1
    ),
    "normalised sigmoids": lambda x: (
        tf.sigmoid(net(x)) / tf.reduce_sum(tf.sigmoid(net(x)), axis=1, keepdims=True)
    ),
    "one-hot answers": lambda x: tf.one_hot(tf.argmax(net(x), axis=1), 5),
}


@pytest.mark.parametrize("name", SHARES)
def test_probabilities_in_disguise(name):
    assert names(SHARES[name]) == ("probabilities",)


NOT_LOGITS = {
    "two sigmoids": (lambda x: tf.sigmoid(net(x)[:, :2]), "sigmoid"),
    "products of probabilities": (lambda x: tf.nn.softmax(net(x)) ** 2, "sigmoid"),
    "scores between 0 and 1": (lambda x: (1 + tf.nn.softsign(net(x))) / 2, "sigmoid"),
    "tanh": (lambda x: tf.tanh(net(x)), "bounded"),
    "unit length": (lambda x: tf.math.l2_normalize(net(x), axis=1), "bounded"),
    "logarithms of a sigmoid": (lambda x: tf.math.log_sigmoid(net(x)), "bounded"),
    "hard sigmoids": (lambda x: 10 * keras.activations.hard_sigmoid(net(x)), "clipped"),
    "classes": (lambda x: tf.argmax(net(x), axis=1), "one_output"),
    "a map": (lambda x: net(x)[:, None, None], "shape"),
    "a sequence": (lambda x: net(x)[:, None], "shape"),
}


@pytest.mark.parametrize("name", NOT_LOGITS)
def test_other_outputs_that_are_no_logits(name):
    logits_fn, finding = NOT_LOGITS[name]
    assert finding in names(logits_fn)


RANDOM = {
    "GaussianNoise": lambda x: net(L.GaussianNoise(0.1)(x, training=True)),
    "SpatialDropout": lambda x: net(
        L.SpatialDropout2D(0.3)(tf.tile(x, [1, 1, 1, 3]), training=True)[..., :1]
    ),
    "RandomFlip": lambda x: net(L.RandomFlip("horizontal")(x, training=True)),
    "RandomTranslation": lambda x: net(L.RandomTranslation(0.3, 0.3)(x, training=True)),
    "keras.random": lambda x: net(x + keras.random.normal(tf.shape(x), stddev=0.05)),
    "np.random": lambda x: net(x + np.random.normal(0, 0.05, x.shape).astype("float32")),
    "a little Dropout": lambda x: net(L.Dropout(0.05)(x, training=True)),
    "Dropout of logits": lambda x: L.GaussianDropout(0.2)(net(x), training=True),
    # One coin for the whole batch.
    "stochastic depth": lambda x: net(x * tf.where(tf.random.uniform([]) < 0.5, 1.0, 0.9)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_networks(name):
    keras.utils.set_random_seed(0)
    assert "random" in names(RANDOM[name])


def noise_by_position(x):
    return net(x + 0.3 * tf.random.stateless_normal(tf.shape(x), [1, 2]))


def batch_norm():
    layer = L.BatchNormalization()
    return lambda x: net(layer(x, training=True))


BATCH_DEPENDENT = {
    "standardised over the batch": lambda x: net(x - tf.reduce_mean(x, axis=0)),
    "mean of all pixels": lambda x: net(x - tf.reduce_mean(x)),
    "largest activation": lambda x: net(x) / tf.reduce_max(tf.abs(net(x))),
    "BatchNormalization": batch_norm(),
    "attention over the batch": lambda x: (
        tf.nn.softmax(net(x) @ tf.transpose(net(x)) / 99) @ net(x)
    ),
    "deviation of the batch": lambda x: net(x) * tf.reduce_mean(tf.math.reduce_std(x, axis=0)),
    "softmax over the batch": lambda x: tf.nn.softmax(net(x), axis=0),
    "sorted": lambda x: net(tf.gather(x, tf.argsort(tf.reduce_sum(x, [1, 2, 3])))),
    "noise by position": noise_by_position,
}


@pytest.mark.parametrize("name", BATCH_DEPENDENT)
def test_networks_that_look_at_the_rest_of_the_batch(name):
    assert "batch_dependent" in names(BATCH_DEPENDENT[name])


HONEST = {
    "bare": net,
    "log-probabilities": lambda x: tf.nn.log_softmax(net(x)),
    "logarithms with an offset": lambda x: tf.math.log(tf.nn.softmax(net(x)) + 1e-7),
    "centred": lambda x: net(x) - tf.reduce_mean(net(x), axis=1, keepdims=True),
    "layer normalisation": lambda x: L.LayerNormalization()(net(x)),
    "ten sigmoids": lambda x: 10 * tf.sigmoid(net(x) / 5),
    "bfloat16 pixels": lambda x: net(tf.cast(tf.cast(x, tf.bfloat16), tf.float32)),
    "float16 logits": lambda x: tf.cast(tf.cast(net(x), tf.float16), tf.float32),
    "gate": lambda x: net(x) * tf.sigmoid(net(x)),
    "py_function": lambda x: tf.ensure_shape(tf.py_function(net, [x], tf.float32), [None, 5]),
    "max pooling": lambda x: net(tf.image.resize(tf.nn.max_pool2d(x, 2, 2, "SAME"), [4, 4])),
    "clipped pixels": lambda x: net(tf.clip_by_value(x, 0.0, 1.0)),
    "two classes": lambda x: tf.stack([net(x)[:, 0], -net(x)[:, 0]], axis=1) / 40,
    "Dropout that heeds training": lambda x: L.Dropout(0.5)(net(x), training=False),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_networks_have_no_findings(name):
    assert names(HONEST[name]) == ()


def test_positive_logits_of_a_relu_are_no_sigmoids():
    assert "sigmoid" not in names(lambda x: tf.nn.relu(net(x)) / 30)
