"""The train step: gradients by hand, Keras's own features, saving, and several replicas."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError
from soar_tf.methods import Method, Terms


class _Affine(Method):
    """loss = w.x, penalty = (w.x)^2 with weight 1: gradients are known by hand."""

    has_penalty = True

    def __init__(self, penalty_clipnorm=None):
        self.penalty_clipnorm = penalty_clipnorm

    def terms(self, forward, x, y, *, loss_fn, keys):
        outputs = forward.training(x)
        return Terms(outputs[:, 0], outputs, tf.square(outputs[:, 0]), penalty_weight=1.0)


def _linear_model(method, kernel=(3.0, 4.0), **compile_arguments):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    network.set_weights([np.array(kernel, "float32")[:, None]])
    model = soar_tf.RobustModel(network, method)
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse", **compile_arguments)
    return model


X = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
Y = np.zeros(2, "float32")


def test_one_step_without_clipping():
    # w = (3, 4). loss = mean(w.x) -> gradient (1/2, 1/2); penalty = mean((w.x)^2) -> (3, 4).
    model = _linear_model(_Affine())
    logs = model.fit(X, Y, batch_size=2, verbose=0).history
    np.testing.assert_allclose(model.network.get_weights()[0][:, 0], [3 - 3.5, 4 - 4.5], rtol=1e-6)
    assert logs["loss"][0] == pytest.approx(3.5 + 12.5) and logs["penalty"][0] == 12.5


def test_the_penaltys_gradient_is_clipped_by_itself():
    # The penalty's gradient (3, 4) has norm 5: clipped to 1 it is (0.6, 0.8).
    model = _linear_model(_Affine(penalty_clipnorm=1.0))
    model.fit(X, Y, batch_size=2, verbose=0)
    np.testing.assert_allclose(model.network.get_weights()[0][:, 0], [3 - 1.1, 4 - 1.3], rtol=1e-6)


def test_sample_weight_scales_loss_and_penalty():
    # Weights (1, 0): loss -> (1/2, 0), penalty mean(1 * (w.x)^2) -> (3, 0).
    model = _linear_model(_Affine())
    model.fit(X, Y, sample_weight=np.array([1.0, 0.0]), batch_size=2, verbose=0)
    np.testing.assert_allclose(model.network.get_weights()[0][:, 0], [3 - 3.5, 4.0], rtol=1e-6)


def test_weight_regularizers_count_once():
    network = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.1)),
        ]
    )
    network.set_weights([np.array([[3.0], [4.0]], "float32")])
    model = soar_tf.RobustModel(network, _Affine(penalty_clipnorm=1.0))
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    model.fit(X, Y, batch_size=2, verbose=0)
    # d(0.1 |w|^2) = 0.2 w = (0.6, 0.8).
    np.testing.assert_allclose(
        model.network.get_weights()[0][:, 0], [1.9 - 0.6, 2.7 - 0.8], rtol=1e-5
    )


@pytest.mark.parametrize("clipnorm", [None, 1e9])
def test_the_loss_gradient_that_comes_along_is_the_loss_gradient(clipnorm, smooth_network, images):
    """A clip that never bites takes the shared backward pass; without it there is none to share."""
    x, y = images
    weights = smooth_network.get_weights()
    results = []
    for sample_weight in (None, np.ones(12)):
        smooth_network.set_weights(weights)
        model = soar_tf.SOARModel(smooth_network, epsilon=0.1, penalty_clipnorm=clipnorm)
        model.compile(keras.optimizers.SGD(0.5))
        model.fit(x, y, sample_weight=sample_weight, batch_size=12, verbose=0)
        results.append(smooth_network.get_weights())
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


MODES = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "xla": {"jit_compile": True},
    "two steps an execution": {"steps_per_execution": 2},
}


@pytest.fixture(scope="module")
def trained_in_each_mode():
    results = {}
    generator = np.random.default_rng(1)
    x = generator.uniform(0, 1, (32, 6, 6, 1)).astype("float32")
    y = np.arange(32) % 3
    for mode, arguments in MODES.items():
        keras.utils.set_random_seed(5)
        network = keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        model = soar_tf.SOARModel(network, epsilon=0.1)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"], **arguments)
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
        results[mode] = (history, network.get_weights(), int(model.step.numpy()))
    return results


@pytest.mark.parametrize("mode", MODES)
def test_eager_graph_and_xla_agree(mode, trained_in_each_mode):
    history, weights, steps = trained_in_each_mode[mode]
    expected_history, expected, _ = trained_in_each_mode["graph"]
    assert steps == 8
    for name in ("loss", "penalty"):
        np.testing.assert_allclose(history[name], expected_history[name], rtol=1e-3)
    for first, second in zip(weights, expected, strict=True):
        np.testing.assert_allclose(first, second, rtol=2e-3, atol=2e-5)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(smooth_network, images):
    weights = smooth_network.get_weights()

    def train(seed):
        smooth_network.set_weights(weights)
        model = soar_tf.SOARModel(smooth_network, epsilon=0.1, seed=seed)
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(*images, batch_size=4, shuffle=False, verbose=0)
        return np.concatenate([w.ravel() for w in smooth_network.get_weights()])

    assert np.array_equal(train(1), train(1))
    assert not np.array_equal(train(1), train(2))


def test_the_train_step_is_traced_no_more_than_keras_does(smooth_network, images):
    calls = []

    class Counting(soar_tf.methods.SOAR):
        def terms(self, *args, **kwargs):
            calls.append(1)
            return super().terms(*args, **kwargs)

    model = soar_tf.RobustModel(smooth_network, Counting(epsilon=0.1))
    model.compile("sgd")
    model.fit(*images, batch_size=5, epochs=3, verbose=0)  # with a partial last batch
    assert len(calls) <= 4


def test_save_load_and_fit_go_on_bit_for_bit(tmp_path):
    generator = np.random.default_rng(0)
    x, y = generator.uniform(0, 1, (24, 4, 4, 1)).astype("float32"), np.arange(24) % 3
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3),
        ]
    )
    model = soar_tf.SOARModel(network, epsilon=0.1, lambda_=0.01, seed=4)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 12)
    model.compile(keras.optimizers.Adam(schedule), metrics=["accuracy"])
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is soar_tf.SOARModel
    assert loaded.method.get_config() == model.method.get_config()
    histories = [
        m.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
        for m in (model, loaded)
    ]
    assert histories[0] == histories[1]
    for first, second in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_calling_predicting_and_exporting_is_the_network(smooth_network, images, tmp_path):
    model = soar_tf.SOARModel(smooth_network, epsilon=0.1)
    model.compile("sgd", metrics=["accuracy"])
    x, y = images
    expected = smooth_network.predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx((expected.argmax(1) == y).mean())
    assert set(logs) == {"loss", "accuracy"}
    model.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        ("mse", np.eye(3, dtype="float32")[np.arange(12) % 3]),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
            np.eye(3, dtype="float32")[np.arange(12) % 3],
        ),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), np.arange(12) % 3),
    ],
    ids=["squared error", "label smoothing", "sparse"],
)
def test_other_losses_reach_the_penalty(loss, labels, smooth_network, images):
    model = soar_tf.SOARModel(smooth_network, epsilon=0.1, lambda_=0.1)
    model.compile("sgd", loss=loss)
    history = model.fit(images[0], labels, verbose=0, epochs=2).history
    assert np.isfinite(history["loss"]).all() and history["penalty"][0] > 0


def test_class_weight_of_zero_removes_a_class(smooth_network, images):
    x, y = images
    weights = smooth_network.get_weights()
    model = soar_tf.RobustModel(smooth_network, "standard")
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(x, y, class_weight={0: 0.0, 1: 0.0, 2: 0.0}, batch_size=12, verbose=0)
    for first, second in zip(weights, smooth_network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_the_curvature_in_float32(policy):
    generator = np.random.default_rng(0)
    x, y = generator.uniform(0, 1, (16, 6, 6, 1)).astype("float32"), np.arange(16) % 3
    penalties = {}
    for name in ("float32", policy):
        keras.utils.set_random_seed(0)
        network = keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(4, 3, activation="gelu", dtype=name),
                keras.layers.Flatten(),
                keras.layers.Dense(3, dtype=name),
            ]
        )
        model = soar_tf.SOARModel(network, epsilon=0.1, init="zero", norm_clip="none")
        model.compile(keras.optimizers.SGD(0.01))
        history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history
        penalties[name] = history["penalty"]
        assert all(v.dtype == "float32" for v in network.trainable_variables)
    np.testing.assert_allclose(penalties[policy][0], penalties["float32"][0], rtol=1e-5)
    np.testing.assert_allclose(penalties[policy], penalties["float32"], rtol=0.05)


def test_two_replicas_equal_one_device_on_the_same_global_batch():
    code = """
import numpy as np, keras, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import soar_tf
x = np.random.default_rng(0).uniform(0, 1, (16, 4)).astype("float32"); y = np.arange(16) % 3
def train(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(1)
        network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"),
                                    keras.layers.Dense(3)])
        model = soar_tf.SOARModel(network, epsilon=0.1, lambda_=0.1, penalty_clipnorm=0.05)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    history = model.fit(data, epochs=2, verbose=0).history
    return np.concatenate([w.ravel() for w in network.get_weights()]), history
one, one_history = train(tf.distribute.get_strategy())
two, two_history = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
assert np.abs(one - two).max() < 1e-6, np.abs(one - two).max()
np.testing.assert_allclose(one_history["penalty"], two_history["penalty"], rtol=1e-4)
np.testing.assert_allclose(one_history["loss"], two_history["loss"], rtol=1e-4)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_refusals(smooth_network, images):
    x, y = images
    softmax = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax", name="top")])
    with pytest.raises(InputError, match=r"'top' is a softmax; pass soar_tf.networks.to_logits"):
        soar_tf.SOARModel(softmax)
    with pytest.raises(InputError, match="`network` must be a keras.Model. Received: int"):
        soar_tf.SOARModel(3)
    with pytest.raises(InputError, match="is not built; give it a keras.Input"):
        soar_tf.SOARModel(keras.Sequential([keras.layers.Dense(3)]))
    softsign = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softsign")])
    refused = soar_tf.SOARModel(softsign, epsilon=0.1)
    refused.compile("sgd")
    with pytest.raises(InputError, match="softsign"):
        refused.fit(x, y, verbose=0)
    with pytest.raises(InputError, match="`epsilon` must be >= 0 and <= 1. Received: 8."):
        soar_tf.SOARModel(smooth_network, epsilon=8)
    model = soar_tf.SOARModel(smooth_network, epsilon=0.1)
    with pytest.raises(InputError, match="expects probabilities"):
        model.compile("sgd", loss="sparse_categorical_crossentropy")
    model.compile("sgd")
    outside = r"`x` must hold pixels in \[0, 1\]. Received values from .* to .*; divide 0-255"
    with pytest.raises(InputError, match=outside):
        model.fit(x * 255, y, verbose=0)
    with pytest.raises(InputError, match=outside):
        model.fit(tf.data.Dataset.from_tensor_slices((x * 255, y)).batch(4), verbose=0)
