"""Adversarial weight perturbation: against NumPy, and that it leaves no trace."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import methods, registry
from soar_tf.errors import InputError
from soar_tf.training.weight_perturbation import WeightPerturbation

sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))
import linear_oracle as oracle

SHAPE, CLASSES, RATE = (5, 5, 1), 3, 0.1


def network(batchnorm=False, dropout=False):
    keras.utils.set_random_seed(2)
    layers = [keras.Input(SHAPE), keras.layers.Conv2D(3, 3, activation="softplus")]
    if batchnorm:
        layers.append(keras.layers.BatchNormalization(momentum=0.9))
    if dropout:
        layers.append(keras.layers.Dropout(0.5))
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(CLASSES)])


def data(count=8):
    generator = np.random.default_rng(5)
    x = generator.uniform(0, 1, (count, *SHAPE)).astype("float32")
    return x, np.arange(count) % CLASSES


def build(name):
    takes = registry.argument_names(methods.ALL_OBJECTS[name])
    wanted = {"steps": 2, "epsilon": 0.1}
    return methods.get(name, **{k: v for k, v in wanted.items() if k in takes})


def compiled(method, awp, net=None, *, rate=RATE, micro_batch=None, **arguments):
    model = soar_tf.RobustModel(net or network(), method, seed=7, awp=awp, micro_batch=micro_batch)
    model.compile(keras.optimizers.SGD(rate), **arguments)
    return model


def train(model, steps=1):
    """The losses of some steps, and the weights and states after them."""
    logs = [model.train_on_batch(*data(), return_dict=True) for _ in range(steps)]
    state = [variable.numpy() for variable in model.network.variables]
    return [float(log["loss"]) for log in logs], state


def moved(awp, name="fast", steps=1, **arguments):
    """How far the weights of a run have moved, one vector."""
    model = compiled(build(name), awp, **arguments)
    before = np.concatenate([np.ravel(w) for w in model.network.get_weights()])
    train(model, steps)
    return np.concatenate([np.ravel(w) for w in model.network.get_weights()]) - before


def linear_gradients(kernel, bias, x, y):
    """Of the mean cross-entropy of z = x kernel + bias."""
    p = oracle.softmax(x @ kernel + bias) - np.eye(CLASSES)[y]
    return x.T @ p / len(x), p.mean(axis=0)


@pytest.mark.parametrize("eagerly", [True, False])
@pytest.mark.parametrize("name", ["standard", "adversarial"])
def test_a_step_is_the_papers(name, eagerly):
    net, seen = oracle.network(), []
    original = net.call

    def call(inputs, **kwargs):
        seen.append(inputs)
        return original(inputs, **kwargs)

    net.call = call
    method = methods.get(name) if name == "standard" else methods.Adversarial(0.2, 1, 0.2)
    model = compiled(method, "1/10", net, run_eagerly=eagerly, jit_compile=False)
    x = oracle.x
    if name == "adversarial":
        keys = soar_tf.ops.random.example_keys(7, tf.range(4), step=0, purpose="training")
        began = x + oracle.uniform_start(soar_tf.ops.random.derive(keys, 0), 0.2)
        # The point is found at the unperturbed weights.
        x = oracle.sign_steps(began, x, oracle.gradient, 1, 0.2, 0.2)
    model.train_on_batch(oracle.x.astype("float32"), oracle.y)
    kernel, bias = oracle.W.T, oracle.b
    g, _ = linear_gradients(kernel, bias, x, oracle.y)
    # Only the kernel is perturbed, to a tenth of its length.
    worse = kernel + 0.1 * np.linalg.norm(kernel) * g / np.linalg.norm(g)
    steps = linear_gradients(worse, bias, x, oracle.y)
    for weight, start, slope in zip(net.get_weights(), (kernel, bias), steps, strict=True):
        np.testing.assert_allclose(weight, start - RATE * slope, rtol=1e-5, atol=1e-6)
    plain, _ = linear_gradients(kernel, bias, x, oracle.y)
    assert np.linalg.norm(plain - steps[0]) > 0.05 * np.linalg.norm(plain)
    if eagerly:
        # The search has its own passes once; each of the two gradients has one.
        assert len(seen) == (2 if name == "standard" else 3)
        np.testing.assert_array_equal(seen[-1], seen[-2])


@pytest.mark.parametrize("name", methods.ALL_OBJECTS)
def test_weights_are_restored_to_the_bit(name):
    model = compiled(build(name), 0.1, rate=0.0, run_eagerly=True)
    before = model.network.get_weights()
    train(model)
    for old, new in zip(before, model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_weights_are_restored_to_the_bit_in_a_graph(micro_batch):
    model = compiled(build("trades"), 0.1, rate=0.0, micro_batch=micro_batch, jit_compile=False)
    before = model.network.get_weights()
    train(model, 2)
    for old, new in zip(before, model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_error_in_the_middle_leaves_the_weights():
    class Fails(methods.Method):
        def terms(self, forward, x, y, *, loss_fn, keys):
            logits = forward.training(x)
            seen.append(forward.network.get_weights()[0])
            if len(seen) == 2:
                raise RuntimeError("in the second pass")
            return methods.Terms(loss_fn(y, logits), logits)

    seen = []
    model = compiled(Fails(), 0.1, run_eagerly=True)
    before = model.network.get_weights()
    with pytest.raises(RuntimeError, match="second pass"):
        train(model)
    assert np.abs(seen[1] - seen[0]).max() > 0
    for old, new in zip(before, model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["fast", "soar", "mart", "sum"])
def test_graph_equals_eager(name):
    eager = moved(0.05, name, steps=2, run_eagerly=True)
    graph = moved(0.05, name, steps=2, jit_compile=False)
    assert np.linalg.norm(graph - eager) < 1e-3 * np.linalg.norm(eager)


@pytest.mark.slow
@pytest.mark.parametrize("awp", [0.05, "stairs(0, 0.05, steps=1)"])
def test_xla_equals_eager(awp):
    eager = moved(awp, "n-fgsm", steps=2, run_eagerly=True)
    compiled_by_xla = moved(awp, "n-fgsm", steps=2, jit_compile=True)
    assert np.linalg.norm(compiled_by_xla - eager) < 2e-3 * np.linalg.norm(eager)


@pytest.mark.parametrize("name", ["qub", "soar", "llr"])
def test_parts_give_the_step_of_the_batch(name):
    whole = moved(0.05, name, run_eagerly=True)
    parts = moved(0.05, name, run_eagerly=True, micro_batch=3)
    assert np.linalg.norm(parts - whole) < 2e-2 * np.linalg.norm(whole)
    apart = np.linalg.norm(moved(None, name, run_eagerly=True) - whole)
    assert np.linalg.norm(parts - whole) < 0.1 * apart


def test_batchnorm_sees_one_pass_at_the_perturbed_weights():
    net = network(batchnorm=True)
    inputs = []
    original = net.layers[1].call
    net.layers[1].call = lambda x, **kwargs: inputs.append(x.numpy()) or original(x, **kwargs)
    train(compiled(methods.Standard(), 0.2, net, run_eagerly=True))
    first, second = inputs
    assert np.abs(first - second).max() > 0.01  # the convolution before it was moved
    means = second.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(net.layers[1].moving_mean, 0.1 * means, rtol=1e-5)


def test_dropout_drops_the_same_and_goes_on_by_one_mask():
    def seeds(awp, steps):
        model = compiled(methods.Standard(), awp, network(dropout=True), run_eagerly=True)
        train(model, steps)
        return keras.ops.convert_to_numpy(model.network.layers[1].seed_generator.state)

    np.testing.assert_array_equal(seeds(0.1, 2), seeds(None, 2))


@pytest.mark.parametrize("eagerly", [True, False])
def test_warm_up_by_a_schedule(eagerly):
    arguments = {"run_eagerly": True} if eagerly else {"jit_compile": False}

    def run(awp, steps):
        return train(compiled(build("fast"), awp, network(batchnorm=True), **arguments), steps)

    late = "stairs(0, 0.1, steps=2)"
    for got, expected in zip(run(late, 2)[1], run(None, 2)[1], strict=True):
        np.testing.assert_array_equal(got, expected)
    model = compiled(build("fast"), None, network(batchnorm=True), **arguments)
    train(model, 2)
    # From there on it is the constant's step.
    going_on = compiled(build("fast"), 0.1, model.network, **arguments)
    going_on.step.assign(2)
    losses, state = train(going_on)
    got = run(late, 3)
    np.testing.assert_allclose(got[0][2:], losses, rtol=1e-6)
    for mine, expected in zip(got[1], state, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-7)


def test_size_is_logged_if_it_changes():
    x, y = data()
    model = compiled(build("fast"), "stairs(0, 0.005, epochs=2)", jit_compile=False)
    history = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history
    np.testing.assert_allclose(history["awp"], [0.0, 0.0, 0.005])
    model = compiled(build("fast"), 0.005, jit_compile=False)
    assert "awp" not in model.fit(x, y, verbose=0).history


def test_zero_and_none_are_the_method_alone():
    for awp in (0, "none", None, "stairs(0, steps=1)"):
        for got, expected in zip(
            train(compiled(build("fast"), awp, run_eagerly=True), 2)[1],
            train(compiled(build("fast"), None, run_eagerly=True), 2)[1],
            strict=True,
        ):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_close_to_float32(policy):
    expected = train(compiled(build("fast"), 0.05, run_eagerly=True))
    keras.config.set_dtype_policy(policy)
    try:
        losses, weights = train(compiled(build("fast"), 0.05, run_eagerly=True))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(losses, expected[0], rtol=0.03)
    assert all(np.all(np.isfinite(w)) for w in weights)


def test_a_gradient_that_is_not_finite_perturbs_nothing():
    class Infinite(methods.Method):
        def terms(self, forward, x, y, *, loss_fn, keys):
            logits = forward.training(x)
            seen.append(forward.network.get_weights())
            return methods.Terms(loss_fn(y, logits) * np.float32(np.inf), logits)

    seen = []
    model = compiled(Infinite(), 0.1, network(batchnorm=True), rate=0.0, run_eagerly=True)
    train(model)
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert all(np.all(np.isfinite(w)) for w in seen[1])


def test_saved_and_resumed_with_the_same_bits(tmp_path):
    whole = compiled(build("trades"), "stairs(0, 0.1, steps=1)", jit_compile=False)
    expected = train(whole, 4)[1]
    half = compiled(build("trades"), "stairs(0, 0.1, steps=1)", jit_compile=False)
    train(half, 2)
    half.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    assert resumed.get_config()["awp"] == "stairs(0, 0.1, steps=1)"
    for got, wanted in zip(train(resumed, 2)[1], expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_searches_are_repeated_without_being_run():
    ran = []
    net = oracle.network()
    first = methods.Forward(net)

    def search():
        ran.append(1)
        return tf.constant(oracle.x, tf.float32)

    found = [first.search(search), first.search(lambda: 2.0 * search())]
    again = methods.Forward(net, points=found)
    np.testing.assert_array_equal(again.search(search), found[0])
    np.testing.assert_array_equal(again.search(search), found[1])
    assert len(ran) == 2
    again.search(search)
    assert len(ran) == 3 and len(first.searched) == 2 and len(again.searched) == 3


def test_settings():
    assert WeightPerturbation("8/1000").setting == 0.008
    assert WeightPerturbation(None).at(0) == 0.0
    assert WeightPerturbation("stairs(0, 0.01, epochs=10)").counts_epochs
    model = soar_tf.SOARModel(network(), awp="0.01")
    assert soar_tf.SOARModel.from_config(model.get_config())._perturbation.setting == 0.01
    for bad in (-1, "ramp(0, -1, steps=2)"):
        with pytest.raises(InputError, match="`awp` must be >= 0"):
            soar_tf.RobustModel(network(), "fast", awp=bad)
    with pytest.raises(InputError, match="`awp` must be a finite number"):
        soar_tf.RobustModel(network(), "fast", awp="much")
