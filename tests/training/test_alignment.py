"""The alignment that steps log, against gradients by formula; it changes no step."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))
from linear_oracle import BATCH, gradient, network, sign_steps, uniform_start, x, y

import soar_tf
from soar_tf import methods
from soar_tf.ops import random

EPSILON, SEED = 0.2, 5


def keys(step=0):
    return random.example_keys(SEED, tf.range(BATCH), step=step, purpose="training")


def cosines(start, end):
    a, c = gradient(start), gradient(end)
    return (a * c).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(c, axis=1)


def ends(name, start="zero"):
    """The points before and after the step of the first batch."""
    own = random.derive(keys(), 0)
    reach, length, ball = {
        "zero": (0, 1, EPSILON),
        "random": (1, 1.25, EPSILON),
        "noise": (2, 1, 1.0),
    }[{"fast": "random", "n-fgsm": "noise"}.get(name, start)]
    began = np.clip(x + uniform_start(own, reach * EPSILON), 0, 1) if reach else x
    return began, sign_steps(began, x, gradient, 1, length * EPSILON, ball)


def model(method, **arguments):
    compiled = {k: arguments.pop(k) for k in ("run_eagerly", "optimizer") if k in arguments}
    made = soar_tf.RobustModel(network(), method, seed=SEED, **arguments)
    made.compile(**{"optimizer": keras.optimizers.SGD(0.1), "jit_compile": False, **compiled})
    return made


def train(trained, steps=1, **arguments):
    logs = [
        trained.train_on_batch(x.astype("float32"), y, return_dict=True, **arguments)
        for _ in range(steps)
    ]
    return logs, np.concatenate([np.ravel(weight) for weight in trained.network.get_weights()])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fast", {}),
        ("n-fgsm", {}),
        ("gradalign", {}),
        ("gradalign", {"start": "random"}),
        ("elle", {}),
        ("elle", {"start": "noise", "lambda_": 30}),
        ("adversarial", {"steps": 1, "step_size": EPSILON, "random_start": False}),
    ],
)
def test_mean_cosine_by_formula_and_the_same_steps(name, arguments):
    def build():
        return methods.get(name, epsilon=EPSILON, **arguments)

    watched = model(build())
    watched.log_alignment()
    logs, after = train(watched, 3)
    expected = cosines(*ends(name, arguments.get("start", "zero"))).mean()
    np.testing.assert_allclose(logs[0]["alignment"], expected, rtol=1e-4)
    plain, weights = train(model(build()), 3)
    np.testing.assert_array_equal(after, weights)
    assert "alignment" not in plain[0]


@pytest.mark.parametrize(
    "arguments", [{"micro_batch": 3}, {"awp": 0.0}, {"awp": "stairs(0, 0.01, steps=2)"}]
)
def test_parts_and_perturbed_weights(arguments):
    watched = model(methods.Fast(EPSILON), **arguments)
    watched.log_alignment()
    logs, _ = train(watched, 4)
    np.testing.assert_allclose(logs[0]["alignment"], cosines(*ends("fast")).mean(), rtol=1e-4)
    assert all(-1 <= log["alignment"] <= 1 for log in logs)


def test_sample_weights_and_a_loss_scale_turn_no_gradient():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=64.0)
    watched = model(methods.Fast(EPSILON), optimizer=optimizer)
    watched.log_alignment()
    logs, _ = train(watched, sample_weight=np.array([1.0, 3.0, 0.5, 2.0], "float32"))
    np.testing.assert_allclose(logs[0]["alignment"], cosines(*ends("fast")).mean(), rtol=1e-4)


@pytest.mark.parametrize(
    "method", [methods.Adversarial(EPSILON, steps=3), methods.SOAR(EPSILON), methods.Standard()]
)
def test_methods_without_a_single_step_log_none(method):
    watched = model(method)
    watched.log_alignment()
    assert "alignment" not in train(watched)[0][0]


def test_a_member_of_a_sum_is_watched():
    combined = methods.Sum([methods.Fast(EPSILON), methods.SOAR(EPSILON)])
    watched = model(combined)
    watched.log_alignment()
    logs, after = train(watched, 2)
    member = random.derive(random.derive(keys(), 0), 0)
    began = np.clip(x + uniform_start(member, EPSILON), 0, 1)
    end = sign_steps(began, x, gradient, 1, 1.25 * EPSILON, EPSILON)
    np.testing.assert_allclose(logs[0]["alignment"], cosines(began, end).mean(), rtol=1e-4)
    np.testing.assert_allclose(after, train(model(combined), 2)[1], atol=1e-6)


def test_fit_that_has_begun_already_begins_to_log():
    trained = model(methods.Fast(EPSILON))
    images = x.astype("float32")
    assert "alignment" not in trained.fit(images, y, batch_size=4, verbose=0).history
    trained.log_alignment()
    history = trained.fit(images, y, batch_size=4, verbose=0).history
    assert -1 <= history["alignment"][0] <= 1
