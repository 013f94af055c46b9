"""What every registered attack must keep: one table over the registry, nothing per attack.

A new attack is covered by its registry line. Attacks are made short through `SHORT`, by argument.
"""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import soar_tf
from soar_tf import attacks, registry
from soar_tf.ops import norms

# Arguments that make any attack short; those that an attack does not take are left out.
SHORT = {"steps": 3, "queries": 20, "targets": 2, "restarts": 2, "samples": 3, "search_steps": 2}
SHORT["initial_norm"] = 0.25  # of DDN, which takes many steps to come down from 1
RADIUS = {"linf": 0.06, "l2": 0.3, "l1": 0.8}
SHAPE = (5, 4, 1)
CLASSES = 5
PROPERTY = settings(max_examples=5, deadline=None, derandomize=True, database=None)


class Tiny:
    """A smooth network with two switches, so that one graph serves every test.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes=CLASSES, shape=SHAPE):
        generator = np.random.default_rng(3)
        size = int(np.prod(shape))
        self.first = tf.constant(generator.normal(size=(size, 8)) / np.sqrt(size), tf.float32)
        self.second = tf.constant(generator.normal(size=(8, classes)), tf.float32)
        self.nan_above = tf.Variable(np.inf, dtype=tf.float32)
        self.nan_slope = tf.Variable(0.0)
        self.traces = 0

    def __call__(self, x):
        self.traces += 1
        logits = tf.nn.tanh(4.0 * norms.flatten(x - 0.5) @ self.first) @ self.second
        # NaN logits where an image leaves the region; a slope of NaN under finite logits.
        outside = tf.reduce_max(norms.flatten(x), axis=1, keepdims=True) > self.nan_above
        logits = tf.where(outside, np.nan, logits)
        return logits + self.nan_slope * tf.sqrt(tf.zeros_like(logits) * logits)


def short(attack):
    """The same attack with the arguments of `SHORT`, its stages included if it has any."""
    config = attack.get_config()
    config.update({key: value for key, value in SHORT.items() if key in config})
    copy = type(attack).from_config(config)
    parts = copy.stages()
    if [part for _, part in parts] != [copy]:
        stages = [(name, short(stage)) for name, stage in parts]
        copy.stages = lambda: stages
    return copy


def table():
    """Every registered name, in each of its norms; without those that `SHORT` makes equal."""
    cases = {}
    for name in (*attacks.ALL_OBJECTS, *attacks.EXAMPLES):
        attack = attacks.get(name)
        for norm in attack.norms:
            config = attack.get_config()
            if "norm" in config:
                config["norm"] = norm
            if "epsilon" in config:
                config["epsilon"] = RADIUS[norm]
            case = short(type(attack).from_config(config))
            key = repr((type(case), case.get_config()))
            if key not in {known for known, _ in cases.values()}:
                cases[f"{name}-{norm}" if norm else name] = (key, case)
    return {name: case for name, (_, case) in cases.items()}


CASES = table()
NETWORK = Tiny()


def of_attacks(names):
    """A test of these attacks. One made of others takes long: its stages are tested anyway."""
    slow = [pytest.mark.slow]
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=slow if "stages" in vars(CASES[n]) else []) for n in names]
    )


every_attack = of_attacks(CASES)


def images(seed, count, shape=SHAPE):
    """Images of which some pixels lie on the box's faces."""
    x = np.random.default_rng(seed).uniform(-0.2, 1.2, size=(count, *shape))
    return np.clip(x, 0.0, 1.0).astype("float32")


def predict(x, network=NETWORK):
    return np.argmax(network(tf.constant(x)), axis=1)


def sizes(delta, norm):
    return norms.norm(tf.constant(delta), norm).numpy().max(initial=0.0)


def assert_inside(attack, found, x):
    assert found.dtype == np.float32 and found.shape == x.shape
    assert np.isfinite(found).all()
    assert found.min(initial=0.0) >= 0.0 and found.max(initial=1.0) <= 1.0
    if attack.norm is not None:
        assert sizes(found - x, attack.norm) <= attack.epsilon * (1 + 1e-5) + 1e-6


@contextlib.contextmanager
def eagerly():
    """Runs graph functions op by op: a trace costs more than the few steps taken here."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def call(attack, x, y, *, network=NETWORK, **options):
    return attack(network, x, y, **options).numpy()


def traces(run):
    before = NETWORK.traces
    run()
    return NETWORK.traces - before


@every_attack
@PROPERTY
@given(data_seed=st.integers(0, 99), seed=st.integers(0, 2**40), count=st.integers(1, 6))
def test_results_lie_in_the_ball_and_the_box(name, data_seed, seed, count):
    attack, x = CASES[name], images(data_seed, count)
    y = predict(x)
    wrong = np.arange(count) % 3 == 2
    y[wrong] = (y[wrong] + 1) % CLASSES
    found = call(attack, x, y, seed=seed)
    assert_inside(attack, found, x)
    np.testing.assert_array_equal(found[wrong], x[wrong])  # misclassified already
    np.testing.assert_array_equal(found, call(attack, x, y, seed=seed))


@every_attack
@PROPERTY
@given(data_seed=st.integers(0, 99), order=st.permutations(range(5)), kept=st.integers(1, 5))
def test_results_do_not_depend_on_the_batch(name, data_seed, order, kept):
    attack, x = CASES[name], images(data_seed, 5)
    y = predict(x)
    rows = np.array(order[:kept])
    found = call(attack, x, y, seed=1)
    again = call(attack, x[rows], y[rows], seed=1, indices=rows)
    differing = np.abs(again - found[rows]).reshape(kept, -1).max(axis=1) > 1e-4
    if name == "deepfool-l2":
        # Of two boundaries that are equally near, rounding, which depends on the size of a batch,
        # chooses one: the point must lie behind either.
        assert (predict(again) != y[rows])[differing].all()
        assert (predict(found[rows]) != y[rows])[differing].all()
    else:
        assert not differing.any()


@every_attack
def test_traced_once_whatever_the_number_of_survivors(name):
    attack, x = CASES[name], images(1, 6)
    y = predict(x)
    attack(NETWORK, x, y)
    wrong = (y + 1) % CLASSES
    assert traces(lambda: attack(NETWORK, x[:1], y[:1])) == 0
    assert traces(lambda: attack(NETWORK, x, np.where(np.arange(6) < 4, wrong, y))) == 0
    unbroken = attack(NETWORK, x, wrong)  # no survivors at all
    np.testing.assert_array_equal(unbroken, x)


@every_attack
def test_nan_logits_do_not_crash(name):
    attack, x = CASES[name], 0.9 * images(2, 4)
    y = predict(x)
    NETWORK.nan_above.assign(0.9)
    try:
        found = call(attack, x, y)
    finally:
        NETWORK.nan_above.assign(np.inf)
    assert_inside(attack, found, x)


@every_attack
def test_nan_gradients_give_no_nan_images(name):
    attack, x = CASES[name], images(2, 3)
    y = predict(x)
    NETWORK.nan_slope.assign(1.0)
    try:
        assert_inside(attack, call(attack, x, y), x)
    finally:
        NETWORK.nan_slope.assign(0.0)


@every_attack
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_input_types(name, dtype):
    attack, x = CASES[name], images(4, 3).astype(dtype)
    y = predict(x.astype("float32")).astype("int32")
    assert_inside(attack, call(attack, x, y), x.astype("float32"))


@every_attack
def test_evaluation_is_what_the_attack_finds(name):
    attack, x = CASES[name], images(5, 6)
    y = predict(x)
    y[4] = (y[4] + 1) % CLASSES
    with eagerly():
        result = soar_tf.evaluate(NETWORK, x, y, [attack], seed=7, batch_size=4)
    assert result.worst_case_accuracy <= result.attacks[0].robust_accuracy
    assert result.attacks[0].robust_accuracy <= result.clean_accuracy == 5 / 6
    found = call(attack, x, y, seed=7)
    np.testing.assert_array_equal(result.attacks[0].robust, predict(found) == y)


@every_attack
def test_the_attack_breaks_something(name):
    attack, x = CASES[name], images(8, 24)
    y = predict(x)
    found = call(attack, x, y)
    broken = predict(found) != y
    assert broken.any(), "An attack that breaks nothing here does not work, or SHORT is too short."


@of_attacks(name for name, attack in CASES.items() if attack.norm is not None)
def test_epsilon_zero_gives_the_image_back(name):
    attack = CASES[name]
    attack = short(type(attack).from_config({**attack.get_config(), "epsilon": 0.0}))
    x = images(6, 2)
    with eagerly():
        np.testing.assert_array_equal(attack(NETWORK, x, predict(x)), x)


@every_attack
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_without_a_graph(name, classes):
    network, x = Tiny(classes), images(7, 3)
    attack = CASES[name]
    with eagerly():
        assert_inside(attack, attack(network, x, predict(x, network)).numpy(), x)


@every_attack
def test_a_convolution_never_sees_an_empty_batch(name):
    # oneDNN's convolutions fail on one, so an attack that has broken everything must stop.
    config = CASES[name].get_config()
    if "epsilon" in config:
        config["epsilon"] = 0.9 if CASES[name].norm == "linf" else 9.0
    attack = short(type(CASES[name]).from_config(config))
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 1, 3)), tf.float32)
    batches = []

    def network(x):
        batches.append(len(x))
        return 9.0 * tf.reduce_mean(tf.nn.conv2d(x - 0.5, kernel, 1, "SAME"), axis=(1, 2))

    x = 0.4 + 0.2 * images(9, 4)
    with eagerly():
        found = attack(network, x, predict(x, network)).numpy()
    assert_inside(attack, found, x)
    assert min(batches) > 0


@every_attack
def test_config_round_trip(name):
    attack = CASES[name]
    copy = attacks.deserialize(attacks.serialize(attack))
    assert type(copy) is type(attack) and copy.get_config() == attack.get_config()


@pytest.mark.parametrize("name", attacks.ALL_OBJECTS)
def test_unknown_arguments_are_refused(name):
    with pytest.raises(soar_tf.errors.InputError, match=f"Unknown argument of attack '{name}'"):
        attacks.get(f"{name}:no_such_argument=1")
    assert "bounds" in registry.argument_names(attacks.ALL_OBJECTS[name])
