"""What every registered method promises: one table of tests over `methods.ALL_OBJECTS`."""

import functools
import json
import subprocess
import sys
import tomllib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tomli_w

import soar_tf
from soar_tf import methods, registry
from soar_tf.ops import random

SHAPE, CLASSES, BATCH, RATE, SEED = (4, 4, 1), 3, 8, 0.05, 7
every_method = pytest.mark.parametrize("name", methods.ALL_OBJECTS)


def build(name):
    """The method with few steps and a ball large enough to matter."""
    takes = registry.argument_names(methods.ALL_OBJECTS[name])
    wanted = {"steps": 2, "epsilon": 0.1}
    return methods.get(name, **{k: v for k, v in wanted.items() if k in takes})


def network(batchnorm=False):
    """A small network without kinks; the same weights every time."""
    keras.utils.set_random_seed(2)
    layers = [keras.Input(SHAPE), keras.layers.Conv2D(3, 3, activation="softplus")]
    if batchnorm:
        layers.append(keras.layers.BatchNormalization(momentum=0.9))
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(CLASSES)])


def data(count=BATCH):
    generator = np.random.default_rng(5)
    return generator.uniform(0, 1, (count, *SHAPE)).astype("float32"), np.arange(count) % CLASSES


def compiled(name, net=None, **arguments):
    model = soar_tf.RobustModel(net or network(), build(name), seed=SEED)
    model.compile(keras.optimizers.SGD(RATE), **arguments)
    return model


def train(name, steps, net=None, batch=None, **arguments):
    """The losses of some steps, and the network's weights after them."""
    model = compiled(name, net, **arguments)
    x, y = batch or data()
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(steps)]
    return [float(log["loss"]) for log in logs], model.network.get_weights()


@functools.cache
def eager_run(name):
    return train(name, 3, run_eagerly=True)


def assert_same_training(got, expected, tolerance):
    """Losses agree, and weights relative to how far they have moved."""
    np.testing.assert_allclose(got[0], expected[0], rtol=tolerance)
    moved = np.sqrt(
        sum(np.sum((a - b) ** 2) for a, b in zip(expected[1], network().get_weights(), strict=True))
    )
    apart = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(got[1], expected[1], strict=True)))
    assert moved > 0 and apart < tolerance * moved, (apart, moved)


@every_method
def test_config_round_trip(name):
    method = build(name)
    config = method.get_config()
    assert set(config) == set(registry.argument_names(type(method)))
    assert methods.deserialize(methods.serialize(method)).get_config() == config
    assert methods.get(name, **json.loads(json.dumps(config))).get_config() == config
    # A run directory's TOML file spells None as a string, since TOML has no null.
    plain = {key: "none" if value is None else value for key, value in config.items()}
    read = tomllib.loads(tomli_w.dumps(plain))
    assert methods.get(name, **read).get_config() == config


@every_method
def test_arguments_may_come_as_strings(name):
    config = build(name).get_config()
    scalars = {k: str(v) for k, v in config.items() if not isinstance(v, (list, dict))}
    got = methods.get(name, **scalars).get_config()
    assert {k: got[k] for k in scalars} == {k: config[k] for k in scalars}


@every_method
def test_every_argument_is_documented(name):
    cls = methods.ALL_OBJECTS[name]
    for argument in registry.argument_names(cls):
        assert f"    {argument}: " in cls.__doc__, argument


@every_method
def test_unknown_argument_is_refused(name):
    with pytest.raises(soar_tf.errors.InputError, match="epsilom"):
        methods.get(name, epsilom=0.1)


@every_method
def test_terms_are_per_example_and_reach_every_weight(name):
    method, net = build(name), network()
    x, y = (tf.constant(part) for part in data())
    keys = random.example_keys(SEED, tf.range(BATCH), step=0, purpose="training")
    loss_fn = tf.nn.sparse_softmax_cross_entropy_with_logits
    with tf.GradientTape() as tape:
        forward = methods.Forward(net)
        terms = method.terms(forward, x, y, loss_fn=loss_fn, keys=keys)
        objective = tf.reduce_mean(terms.loss)
        if terms.penalty is not None:
            objective += terms.penalty_weight * tf.reduce_mean(terms.penalty)
    assert terms.loss.shape == (BATCH,) and terms.logits.shape == (BATCH, CLASSES)
    assert (terms.penalty is not None) == method.has_penalty
    assert terms.penalty is None or terms.penalty.shape == (BATCH,)
    gradients = tape.gradient(objective, [weight.value for weight in net.trainable_weights])
    assert all(g is not None and np.all(np.isfinite(g)) and np.any(g) for g in gradients)
    if method.penalty_clipnorm is None:
        # The engine's step is a step along this gradient.
        after = train(name, 1, run_eagerly=True)[1]
        for weight, start, g in zip(after, network().get_weights(), gradients, strict=True):
            np.testing.assert_allclose(weight, start - RATE * g, rtol=1e-4, atol=1e-6)


@every_method
def test_an_example_does_not_depend_on_its_batch(name):
    x, y = (tf.constant(part) for part in data())
    keys = random.example_keys(SEED, tf.range(BATCH), step=0, purpose="training")
    loss_fn = tf.nn.sparse_softmax_cross_entropy_with_logits

    def terms(rows):
        forward = methods.Forward(network())
        return build(name).terms(forward, x[rows], y[rows], loss_fn=loss_fn, keys=keys[rows])

    whole, part = terms(slice(None)), terms(slice(2, 5))
    np.testing.assert_allclose(whole.loss[2:5], part.loss, rtol=1e-4)
    if whole.penalty is not None:
        np.testing.assert_allclose(whole.penalty[2:5], part.penalty, rtol=1e-3, atol=1e-6)


@every_method
def test_same_seed_gives_the_same_bits(name):
    losses, weights = train(name, 3, run_eagerly=True)
    assert losses == eager_run(name)[0]
    for got, expected in zip(weights, eager_run(name)[1], strict=True):
        np.testing.assert_array_equal(got, expected)


@every_method
def test_graph_equals_eager(name):
    assert_same_training(train(name, 3, jit_compile=False), eager_run(name), 1e-3)


@pytest.mark.slow
@every_method
def test_xla_equals_eager(name):
    assert_same_training(train(name, 3, jit_compile=True), eager_run(name), 2e-3)


@every_method
def test_batchnorm_is_updated_once_a_step(name):
    net, plain = network(batchnorm=True), network(batchnorm=True)
    plain.set_weights(net.get_weights())
    seen, original = [], net.call

    def call(inputs, training=None, **kwargs):
        if training:
            seen.append(inputs)
        return original(inputs, training=training, **kwargs)

    net.call = call
    train(name, 1, net, run_eagerly=True)
    # One plain pass over what the method first passed in training mode.
    plain(seen[0], training=True)
    for got, expected in zip(
        net.non_trainable_variables, plain.non_trainable_variables, strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@every_method
def test_batch_of_one(name):
    losses, weights = train(name, 1, network(batchnorm=True), data(1), run_eagerly=True)
    assert np.all(np.isfinite(losses)) and all(np.all(np.isfinite(w)) for w in weights)


@every_method
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_close_to_float32(name, policy):
    keras.config.set_dtype_policy(policy)
    losses, weights = train(name, 1, run_eagerly=True)
    # bfloat16 has 8 bits: logits differ by a percent.
    np.testing.assert_allclose(losses, eager_run(name)[0][:1], rtol=0.03)
    assert all(w.dtype == "float32" and np.all(np.isfinite(w)) for w in weights)


REPLICAS = """
import sys
sys.path.insert(0, {folder!r})
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
import test_methods as contract

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, y = contract.data()
batch = tf.data.Dataset.from_tensors((x, y)).repeat(2)
for name in contract.methods.ALL_OBJECTS:
    with strategy.scope():
        model = contract.compiled(name, jit_compile=False)
    losses = model.fit(batch, steps_per_epoch=1, epochs=2, verbose=0).history["loss"]
    expected = contract.train(name, 2, run_eagerly=True)
    contract.assert_same_training((losses, model.network.get_weights()), expected, 1e-3)
    print(name, flush=True)
"""


@pytest.mark.slow
def test_two_replicas_equal_one_device(request):
    code = REPLICAS.format(folder=str(request.path.parent))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.split() == list(methods.ALL_OBJECTS)
