"""The parameter gradient of SOAR's objective, against float64 differences of its value.

The oracle writes the objective down again (eq. 11 and 12 of arXiv:2004.01832) in float64 with
first-order gradients only, and differences it along directions in parameter space. The expansion
point x' is a constant there, as it is in SOAR.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import soar_tf
from soar_tf.methods import SOAR, Forward
from soar_tf.ops import losses, random
from soar_tf.second_order import replacements

SHAPE, CLASSES, BATCH, EPSILON = (6, 6, 2), 3, 3, 0.1
LARGE_STEP = {"alpha": 0.3, "h_min": 0.3}  # at which float32 rounding does not matter


@contextlib.contextmanager
def policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def network_of(build, dtype="float32"):
    """Convolution, the layers under test, dense."""
    with policy(dtype):
        # Not the policy's by default, and a functional model casts to it.
        inputs = keras.Input(SHAPE, dtype="float64" if dtype == "float64" else "float32")
        x = layers.Conv2D(4, 3, activation="tanh", kernel_initializer="he_normal")(inputs)
        x = layers.Flatten()(build(x))
        return keras.Model(inputs, layers.Dense(CLASSES)(x))


def pair(build):
    """The same network in float32 and in float64, with statistics that are not the initial ones."""
    keras.utils.set_random_seed(1)
    single = network_of(build)
    generator = np.random.default_rng(2)
    single.set_weights(
        [w + 0.1 * generator.random(w.shape).astype(w.dtype) for w in single.get_weights()]
    )
    double = network_of(build, "float64")
    double.set_weights(single.get_weights())
    return single, double


def batch(seed=0):
    generator = np.random.default_rng(seed)
    x = generator.uniform(0.2, 0.8, (BATCH, *SHAPE)).astype("float32")
    keys = random.example_keys(seed, tf.range(BATCH), purpose="test")
    return tf.constant(x), tf.constant([0, 2, 1]), keys


def method(**arguments):
    defaults = {"epsilon": EPSILON, "norm_clip": None, "init": "zero", "lambda_": 0.5, **LARGE_STEP}
    return SOAR(**(defaults | arguments))


def soar_terms(network, soar, data, jit_compile=None, skip=False):
    """The mean loss and penalty and their parameter gradients; `None`: eagerly."""
    weights = [w.value for w in network.trainable_weights]

    def compute(x, y, keys):
        with tf.GradientTape(persistent=True) as tape:
            forward = Forward(
                network,
                xla=bool(jit_compile),
                tape=tape,
                skip_clipped=skip,
                needs_recorded_loss=skip,
            )
            terms = soar.terms(forward, x, y, loss_fn=losses.cross_entropy, keys=keys)
            loss, penalty = tf.reduce_mean(terms.loss), tf.reduce_mean(terms.penalty)
        zero = tf.UnconnectedGradients.ZERO
        gradients = [
            tape.gradient(value, weights, unconnected_gradients=zero) for value in (loss, penalty)
        ]
        return loss, penalty, *gradients, terms.penalty

    if jit_compile is not None:
        compute = tf.function(compute, jit_compile=jit_compile)
    loss, penalty, loss_gradient, penalty_gradient, each = compute(*data)
    flat = [
        np.concatenate([np.ravel(g) for g in part]) for part in (loss_gradient, penalty_gradient)
    ]
    return {"loss": loss, "penalty": penalty, "each": each.numpy(), "flat": flat}


class Oracle:
    """The objective's value in float64, by first-order gradients alone."""

    def __init__(self, network, soar, point, y, keys, *, resizes=False, compiled=False):
        # TensorFlow's own resizing is float32, whatever it is given.
        self.context = replacements.exact if resizes else contextlib.nullcontext
        if compiled:
            self._gradient = tf.function(self._gradient)
        self.network, self.soar, self.y = network, soar, y
        self.point = tf.cast(point, tf.float64)
        drawn = random.derive(random.derive(keys, "curvature"), 0)
        shape = (-1, 1, 1, 1)
        self.z = tf.cast(random.normal(drawn, SHAPE), tf.float64)
        z_last = random.normal(random.derive(drawn, "z_1"), ())
        self.z_last = tf.reshape(tf.cast(z_last, tf.float64), shape)
        h = random.uniform(random.derive(drawn, "h"), (), 0.0, soar.alpha)
        self.h = tf.reshape(tf.cast(tf.maximum(h, soar.h_min), tf.float64), shape)
        self.start = network.get_weights()
        trainable = {id(w) for w in network.trainable_weights}
        self.trained = [i for i, w in enumerate(network.weights) if id(w) in trainable]

    def _loss(self, x, training):
        logits = self.network(x, training=training)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(self.y, logits)

    def _gradient(self, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(self._loss(x, False))
        return tape.gradient(total, x)

    def penalties(self):
        gradient = self._gradient(self.point)
        length = np.sqrt(np.sum(self.z.numpy() ** 2, axis=(1, 2, 3), keepdims=True))
        moved = self._gradient(self.point + self.h * self.z / length)
        vector = length * (moved - gradient).numpy() / self.h + self.z_last * gradient
        norms = np.sqrt(np.sum(vector.numpy() ** 2, axis=(1, 2, 3)))
        if self.soar.norm_clip is not None:
            norms = np.minimum(norms, self.soar.norm_clip)
        return (np.prod(SHAPE) * EPSILON**2 + 1) / 2 * norms

    def values(self, direction=None, step=0.0):
        """`(mean loss, mean penalty)` with the trained weights moved along `direction`."""
        weights = [w.copy() for w in self.start]
        position = 0
        for i in self.trained if direction is not None else ():
            size = weights[i].size
            part = direction[position : position + size].reshape(weights[i].shape)
            weights[i] = weights[i] + step * part
            position += size
        self.network.set_weights(weights)
        with self.context():
            penalty = np.mean(self.penalties())
            return np.array([np.mean(self._loss(self.point, True)), penalty])

    def derivative(self, direction, step=1e-6):
        ahead, behind = (self.values(direction, sign * step) for sign in (1, -1))
        return (ahead - behind) / (2 * step)


def assert_gradients(found, oracle, *, loss=True, tolerance=1e-3, directions=3):
    """Compares values and directional derivatives; `loss=False` where the loss is random."""
    expected = oracle.values()
    parts = [0, 1] if loss else [1]
    for part in parts:
        value = (found["loss"], found["penalty"])[part]
        np.testing.assert_allclose(value, expected[part], rtol=tolerance)
    generator = np.random.default_rng(3)
    for _ in range(directions):
        direction = generator.normal(size=found["flat"][0].size)
        expected = oracle.derivative(direction)
        for part in parts:
            gradient = found["flat"][part]
            # The gradient's own length: a derivative may be near 0 by chance.
            scale = np.linalg.norm(gradient)
            assert abs(gradient @ direction - expected[part]) <= tolerance * scale
            assert scale > 1e-3


def residual(x):
    return layers.Add()([x, layers.Conv2D(4, 3, padding="same", activation="relu")(x)])


def attention(x):
    x = layers.Reshape((16, 4))(x)
    return layers.MultiHeadAttention(2, 3)(x, x)


def chain(*parts):
    def build(x):
        for part in parts:
            x = part()(x)
        return x

    return build


RANDOM = {
    "dropout": chain(lambda: layers.Dropout(0.4)),
    "gaussian_noise": chain(lambda: layers.GaussianNoise(0.4)),
    "random_flip": chain(lambda: layers.RandomFlip()),
    "attention_dropout": lambda x: layers.MultiHeadAttention(2, 3, dropout=0.4)(x, x),
}
CASES = {
    "plain": lambda x: x,
    "max_pooling": chain(lambda: layers.MaxPooling2D(2)),
    "max_pooling_overlapping": chain(lambda: layers.MaxPooling2D(3, 1, "same")),
    "adaptive_max_pooling": chain(lambda: layers.AdaptiveMaxPooling2D(3)),
    "global_max_pooling": chain(lambda: layers.GlobalMaxPooling2D()),
    "average_pooling": chain(lambda: layers.AveragePooling2D(3, 1)),
    "batch_norm": chain(lambda: layers.BatchNormalization()),
    "batch_norm_relu": chain(lambda: layers.BatchNormalization(), lambda: layers.ReLU()),
    "layer_norm": chain(lambda: layers.LayerNormalization()),
    "layer_norm_all_axes": chain(lambda: layers.LayerNormalization(axis=(1, 2, 3))),
    "group_norm": chain(lambda: layers.GroupNormalization(2)),
    "rms_norm": chain(lambda: layers.RMSNormalization()),
    "unit_norm": chain(lambda: layers.UnitNormalization()),
    "upsampling_nearest": chain(lambda: layers.UpSampling2D(2)),
    "upsampling_bilinear": chain(lambda: layers.UpSampling2D(2, interpolation="bilinear")),
    "resizing_bicubic": chain(lambda: layers.Resizing(3, 5, interpolation="bicubic")),
    "resizing_crop": chain(lambda: layers.Resizing(3, 5, crop_to_aspect_ratio=True)),
    "strided": chain(lambda: layers.Conv2D(3, 3, strides=2, activation="relu")),
    "dilated": chain(lambda: layers.Conv2D(3, 2, dilation_rate=2, activation="gelu")),
    "depthwise": chain(lambda: layers.DepthwiseConv2D(3, strides=2, activation="silu")),
    "separable": chain(lambda: layers.SeparableConv2D(3, 3, activation="elu")),
    "transposed": chain(lambda: layers.Conv2DTranspose(3, 3, strides=2, activation="softplus")),
    "smooth_activations": chain(
        *(lambda name=name: layers.Activation(name) for name in ("gelu", "mish", "selu", "sigmoid"))
    ),
    "piecewise_activations": chain(lambda: layers.LeakyReLU(), lambda: layers.PReLU()),
    "residual": residual,
    "attention": attention,
    "recurrent": chain(lambda: layers.Reshape((4, 16)), lambda: layers.GRU(3)),
    "shared": lambda x: (lambda layer: layer(layer(x)))(layers.Dense(4, activation="tanh")),
}


RESIZES = ("upsampling_bilinear", "resizing_bicubic", "resizing_crop")


def check(build, *, jit_compile=None, loss=True, tolerance=1e-3, resizes=False, **arguments):
    single, double = pair(build)
    x, y, keys = batch()
    soar = method(**arguments)
    found = soar_terms(single, soar, (x, y, keys), jit_compile)
    oracle = Oracle(double, soar, x, y, keys, resizes=resizes)
    assert_gradients(found, oracle, loss=loss, tolerance=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_gradient_by_layer(name):
    check(CASES[name], resizes=name in RESIZES)


@pytest.mark.parametrize("name", RANDOM)
def test_penalty_gradient_of_random_layers_is_that_of_inference_mode(name):
    check(RANDOM[name], loss=False)


def test_gradient_in_a_graph():
    check(CASES["max_pooling"], jit_compile=False)


def mixed(x):
    """What `exact()` handles, in one network."""
    x = layers.MaxPooling2D(2, 1)(layers.LayerNormalization()(x))
    x = layers.UpSampling2D((1, 2), interpolation="bilinear")(layers.BatchNormalization()(x))
    return layers.MaxPooling2D(3, 2, "same")(layers.GroupNormalization(2)(x))


def test_gradient_under_xla():
    check(mixed, jit_compile=True, resizes=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradient_by_layer_under_xla(name):
    check(CASES[name], jit_compile=True, resizes=name in RESIZES)


def test_gradient_at_the_default_steps_is_right_up_to_rounding():
    check(CASES["dilated"], tolerance=3e-2, alpha=0.03, h_min=1e-3)


def test_every_entry_of_the_gradient():
    single, double = pair(
        chain(lambda: layers.MaxPooling2D(2), lambda: layers.LayerNormalization())
    )
    x, y, keys = batch()
    soar = method()
    found = soar_terms(single, soar, (x, y, keys))
    oracle = Oracle(double, soar, x, y, keys, compiled=True)
    count = found["flat"][0].size
    expected = np.array([oracle.derivative(row) for row in np.eye(count)])
    for part in (0, 1):
        scale = np.abs(expected[:, part]).max()
        np.testing.assert_allclose(found["flat"][part], expected[:, part], atol=1e-3 * scale)


def test_expansion_point_is_a_constant():
    single, double = pair(CASES["strided"])
    x, y, keys = batch()
    soar = method(init="pgd1")
    forward = Forward(single)
    point = soar.expansion_point(forward, x, y, losses.cross_entropy, random.derive(keys, "init"))
    assert np.abs(point - x).max() > 0.01
    found = soar_terms(single, soar, (x, y, keys))
    assert_gradients(found, Oracle(double, soar, point, y, keys))


@pytest.mark.parametrize("skip", [False, True], ids=["whole", "skips"])
def test_clipped_examples_have_no_penalty_gradient(skip):
    single, double = pair(CASES["average_pooling"])
    data = x, y, keys = batch()
    factor = (np.prod(SHAPE) * EPSILON**2 + 1) / 2
    free = np.sort(soar_terms(single, method(), data)["each"] / factor)
    clipped = soar_terms(single, method(norm_clip=0.9 * free[0]), data, skip=skip)
    np.testing.assert_array_equal(clipped["flat"][1], 0.0)
    np.testing.assert_allclose(clipped["each"], factor * 0.9 * free[0], rtol=1e-6)
    # Between two examples' norms, the smaller ones alone have a gradient.
    # So it is if none is clipped.
    for clip in ((free[1] + free[2]) / 2, 2 * free[2]):
        soar = method(norm_clip=clip)
        found = soar_terms(single, soar, data, skip=skip)
        assert_gradients(found, Oracle(double, soar, x, y, keys))


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_networks_have_the_float32_penalty(name):
    build = chain(lambda: layers.BatchNormalization(), lambda: layers.MaxPooling2D(2))
    single, _ = pair(build)
    half = network_of(build, name)
    half.set_weights(single.get_weights())
    expected, found = (soar_terms(net, method(), batch()) for net in (single, half))
    np.testing.assert_allclose(found["penalty"], expected["penalty"], rtol=1e-5)
    np.testing.assert_allclose(found["flat"][1], expected["flat"][1], rtol=1e-3, atol=1e-5)
    assert half.layers[1].compute_dtype != "float32"


def test_dropout_masks_do_not_differ_between_the_points():
    keras.utils.set_random_seed(1)
    plain = network_of(lambda x: x)
    dropping = network_of(RANDOM["dropout"])
    dropping.set_weights(plain.get_weights())
    expected, found, again = (
        soar_terms(net, method(), batch()) for net in (plain, dropping, dropping)
    )
    np.testing.assert_allclose(found["each"], expected["each"], rtol=1e-6)
    np.testing.assert_array_equal(found["each"], again["each"])
    assert found["loss"] != again["loss"]  # while the loss's pass does drop


def _one_step(network, soar, x, y, learning_rate):
    model = soar_tf.RobustModel(network, soar, seed=5)
    model.compile(optimizer=keras.optimizers.SGD(learning_rate))
    model.train_on_batch(x, y)
    return random.example_keys(5, tf.range(BATCH), step=0, purpose="training")


def test_train_step_updates_moving_statistics_once_at_the_expansion_point():
    single, _ = pair(CASES["batch_norm"])
    reference = network_of(CASES["batch_norm"])
    reference.set_weights(single.get_weights())
    x, y, _ = batch()
    soar = method(init="pgd1")
    keys = _one_step(single, soar, x, y, 0.0)
    derived = random.derive(keys, "init")
    point = soar.expansion_point(Forward(reference), x, y, losses.cross_entropy, derived)
    before = reference.get_weights()
    reference(point, training=True)
    for old, new, found in zip(before, reference.get_weights(), single.get_weights(), strict=True):
        np.testing.assert_allclose(found, new, rtol=1e-5, atol=1e-7)
        assert np.array_equal(old, new) or np.abs(new - old).max() > 1e-4


@pytest.mark.parametrize("name", ["max_pooling", "batch_norm"])
def test_train_step_takes_the_whole_gradient(name):
    single, double = pair(CASES[name])
    x, y, _ = batch()
    soar = method(penalty_clipnorm=None)
    before = [w.numpy() for w in single.trainable_weights]
    keys = _one_step(single, soar, x, y, 1.0)
    step = [b - w.numpy() for b, w in zip(before, single.trainable_weights, strict=True)]
    step = np.concatenate([np.ravel(part) for part in step])
    oracle = Oracle(double, soar, x, y, keys)
    generator = np.random.default_rng(4)
    for _ in range(3):
        direction = generator.normal(size=step.size)
        expected = oracle.derivative(direction) @ [1.0, soar.lambda_]
        assert abs(step @ direction - expected) <= 1e-3 * np.linalg.norm(step)
