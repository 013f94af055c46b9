"""Arguments that follow a schedule: values, spelling, checks, and the train step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import network, terms

import soar_tf
from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.methods import Ramp, Stairs, schedules
from soar_tf.training import epochs


def values(schedule, steps, steps_per_epoch=None):
    return [float(schedule.at(step, steps_per_epoch)) for step in steps]


def test_a_ramp_is_a_straight_line():
    ramp = Ramp(0.2, 0.6, epochs=2, after=1)
    expected = np.interp(range(0, 40, 3), [10, 30], [0.2, 0.6])
    np.testing.assert_allclose(values(ramp, range(0, 40, 3), 10), expected, rtol=1e-6)


def test_stairs_hold_each_value_for_its_span():
    stairs = Stairs(0.1, 0.4, 0.8, steps=3, after=2)
    expected = [0.1] * 5 + [0.4] * 3 + [0.8] * 4
    np.testing.assert_allclose(values(stairs, range(12)), expected, rtol=1e-6)
    assert values(Stairs(2, epochs=1), [0, 99], 5) == [2.0, 2.0]


@pytest.mark.parametrize(
    "text",
    ["ramp(0, 0.5, epochs=5)", "ramp(0.25, -1, steps=100, after=7)", "stairs(0.1, 3, epochs=1)"],
)
def test_a_schedule_is_its_text(text):
    assert str(schedules.parse(text)) == text == repr(schedules.parse(schedules.parse(text)))


def test_fractions_and_the_default_span_in_text():
    assert schedules.parse("ramp(0, 8/255, epochs=1)").end == 8 / 255
    assert str(schedules.parse("stairs(.1, .4)")) == "stairs(0.1, 0.4, epochs=1)"
    assert schedules.parse("8/255") is None and schedules.parse("preset") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_": "ramp(0, 1)"}, "needs one of `epochs` and `steps`"),
        ({"lambda_": "ramp(0, 1, epochs=1, steps=2)"}, "needs one of"),
        ({"lambda_": "ramp(0, 1, epochs=0)"}, "`epochs` must be > 0"),
        ({"lambda_": "rmap(0, 1, epochs=1)"}, "Did you mean 'ramp'"),
        ({"lambda_": "ramp(0, epochs=1)"}, "A schedule is written"),
        ({"lambda_": "ramp(0, one, epochs=1)"}, "`end` must be a finite number"),
        ({"lambda_": "ramp(0, 1, epochs=1"}, "`lambda_` must be a finite number"),
        ({"lambda_": "ramp(-1, 1, epochs=1)"}, "`lambda_` must be >= 0. Received: -1"),
        ({"epsilon": "stairs(0.1, 8, 0.1)"}, "write 8/255"),
        ({"num_directions": "stairs(1, 2)"}, "`num_directions` must be an integer, which no sch"),
        ({"init": "ramp(0, 1, epochs=1)"}, "`init`"),
        ({"full_vector": "ramp(0, 1, epochs=1)"}, "true or false"),
    ],
)
def test_bad_schedules(arguments, message):
    with pytest.raises(InputError, match=message):
        methods.SOAR(**arguments)


def test_config_has_the_text_and_attributes_the_last_values():
    method = methods.SOAR(epsilon="ramp(0, 0.1, epochs=2)", lambda_=Stairs(0.1, 0.3))
    assert (method.epsilon, method.lambda_) == (0.1, 0.3)
    config = method.get_config()
    assert config["epsilon"] == "ramp(0, 0.1, epochs=2)"
    again = methods.get("soar", **config)
    assert again.get_config() == config and again.schedules == method.schedules
    assert methods.deserialize(methods.serialize(method)).get_config() == config
    now = method.at(5, steps_per_epoch=5)
    assert not now.schedules and float(now.epsilon) == pytest.approx(0.05)
    assert float(now.attack.epsilon) == pytest.approx(0.05)
    assert float(now.attack.effective_step_size) == pytest.approx(0.0125)


@pytest.mark.parametrize("name", [name for name in methods.ALL_OBJECTS if name != "sum"])
def test_any_number_may_follow_a_schedule(name):
    """In a graph, schedules that stay at a value give what the value gives."""
    cls = methods.ALL_OBJECTS[name]
    numbers = {k: v for k, v in cls().get_config().items() if isinstance(v, float)}
    numbers.pop("penalty_fraction", None)
    scheduled = cls(**{k: Ramp(v, v, steps=1) for k, v in numbers.items()})
    assert set(scheduled.schedules) == set(numbers)
    net = network()

    @tf.function(autograph=False)
    def in_graph(step):
        found = terms(scheduled.at(step), net=net)
        return found.loss, 0.0 if found.penalty is None else found.penalty_weight * found.penalty

    loss, penalty = in_graph(tf.constant(3))
    expected = terms(cls())
    np.testing.assert_allclose(loss, expected.loss, rtol=1e-4)
    if expected.penalty is not None:
        weighted = expected.penalty_weight * expected.penalty
        np.testing.assert_allclose(penalty, weighted, rtol=1e-3, atol=1e-6)


def data(count=8):
    generator = np.random.default_rng(5)
    return generator.uniform(0, 1, (count, 4)).astype("float32"), np.arange(count) % 3


def train(method, eager=True, steps=1, **arguments):
    keras.utils.set_random_seed(2)
    net = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)]
    )
    model = soar_tf.RobustModel(net, method, seed=3)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=eager, jit_compile=False)
    logs = [model.train_on_batch(*data(), return_dict=True) for _ in range(steps)]
    return net.get_weights()[0], logs


def test_each_step_is_a_step_with_that_value():
    # After two steps of lambda 0.2 and 0.4, the third has 0.6: also by three separate methods.
    scheduled, logs = train(methods.Jacobian(Ramp(0.2, 1.0, steps=4)), eager=False, steps=3)
    np.testing.assert_allclose([log["lambda_"] for log in logs], [0.2, 0.4, 0.6], rtol=1e-6)
    keras.utils.set_random_seed(2)
    net = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)]
    )
    for step, lambda_ in enumerate([0.2, 0.4, 0.6]):
        model = soar_tf.RobustModel(net, methods.Jacobian(lambda_), seed=3)
        model.step.assign(step)
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.train_on_batch(*data())
    np.testing.assert_allclose(net.get_weights()[0], scheduled, rtol=1e-4)


def test_members_of_a_sum_follow_their_schedules():
    method = methods.Sum(
        [methods.Fast(0.1), {"method": "soar", "lambda_": "ramp(0, 1, steps=2)"}],
        epsilon="ramp(0.1, 0.3, steps=2)",
    )
    _, logs = train(method, eager=False, steps=2)
    assert [float(log["soar_lambda_"]) for log in logs] == [0.0, 0.5]
    assert float(logs[1]["soar_epsilon"]) == pytest.approx(0.2)
    assert methods.deserialize(methods.serialize(method)).get_config() == method.get_config()
    clipped = methods.Sum([methods.SOAR(penalty_clipnorm=Stairs(1, 2)), methods.SOAR()])
    assert float(clipped.at(0, 3).penalty_clipnorm) == 1.0


def test_fit_counts_its_steps_and_logs_the_value():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = soar_tf.RobustModel(net, methods.SOAR(0.1, lambda_="ramp(0, 1, epochs=2)"))
    model.compile("sgd")
    history = model.fit(*data(), batch_size=4, epochs=3, verbose=0).history
    # Two steps an epoch: the last steps have 1/4, 3/4, and 1.
    np.testing.assert_allclose(history["lambda_"], [0.25, 0.75, 1.0], rtol=1e-6)
    # Another number of steps gives another ramp: of 8 steps, after the 6 so far.
    history = model.fit(*data(), batch_size=2, epochs=1, verbose=0).history
    np.testing.assert_allclose(history["lambda_"], [1.0], rtol=1e-6)
    with pytest.raises(InputError, match="pass `steps_per_epoch` to fit"):
        fresh = soar_tf.RobustModel(net, methods.SOAR(0.1, lambda_="ramp(0, 1, epochs=2)"))
        fresh.compile("sgd", run_eagerly=True)
        fresh.train_on_batch(*data())


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"steps_per_epoch": 7}, 7),
        ({"batch_size": 3}, 4),
        ({}, 1),
        ({"batch_size": 3, "validation_split": 0.4}, 2),
    ],
)
def test_steps_per_epoch(kwargs, expected):
    assert epochs.steps_per_epoch((np.zeros((10, 4)), np.zeros(10)), kwargs) == expected


def test_steps_per_epoch_of_a_dataset():
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(3)
    assert epochs.steps_per_epoch((dataset,), {}) == 3
    assert epochs.steps_per_epoch((dataset.repeat(),), {}) is None
