"""DeepFool on linear networks, where the distance to the boundary is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf import attacks
from soar_tf.attacks import DeepFool
from soar_tf.errors import InputError

RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(6, 4)).astype("float32")
X = RNG.uniform(0.4, 0.6, size=(10, 6)).astype("float32")
Y = np.argmax(X @ WEIGHTS, axis=1)


@pytest.fixture(autouse=True)
def _eagerly():
    """A trace costs more than the few steps taken here; the contract tests run graphs."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def linear(x):
    return tf.matmul(x, WEIGHTS)


def distances():
    """The distance of each point to its nearest class boundary."""
    logits = X @ WEIGHTS
    found = np.full((10, 4), np.inf)
    for i, y in enumerate(Y):
        for t in set(range(4)) - {y}:
            slope = np.linalg.norm(WEIGHTS[:, t] - WEIGHTS[:, y])
            found[i, t] = (logits[i, y] - logits[i, t]) / slope
    return found.min(axis=1)


def sizes(found):
    return np.linalg.norm(found - X, axis=1)


def test_one_step_reaches_the_nearest_boundary_of_a_linear_network():
    found = DeepFool(epsilon=10.0, steps=1, bounds=(-9.0, 9.0))(linear, X, Y)
    np.testing.assert_allclose(sizes(found), 1.02 * distances(), rtol=1e-4)
    assert (np.argmax(linear(found), axis=1) != Y).all()


def test_a_point_counts_if_it_lies_within_epsilon():
    epsilon = float(np.median(1.02 * distances()))
    found = DeepFool(epsilon=epsilon, bounds=(-9.0, 9.0))(linear, X, Y).numpy()
    near = 1.02 * distances() <= epsilon
    np.testing.assert_array_equal(np.argmax(linear(found), axis=1) != Y, near)
    np.testing.assert_array_equal(found[~near], X[~near])
    assert 0 < near.sum() < 10


def test_the_box_holds():
    # One coordinate is at the box's face already, so the other has to go all the way, in one step.
    x = np.array([[0.0, 0.5]], np.float32)

    def net(x):
        other = 0.3 - x[:, 0] - x[:, 1]  # needs x_0 + x_1 < .3
        return tf.stack([tf.zeros_like(other), other], axis=1)

    found = DeepFool(epsilon=1.0, steps=1)(net, x, np.zeros(1, int)).numpy()
    np.testing.assert_allclose(found, [[0.0, 0.5 - 1.02 * 0.2]], atol=1e-6)


def test_only_the_likeliest_classes_are_looked_at():
    every = sizes(DeepFool(epsilon=10.0, bounds=(-9.0, 9.0))(linear, X, Y))
    one = sizes(DeepFool(epsilon=10.0, classes=1, bounds=(-9.0, 9.0))(linear, X, Y))
    assert (every <= one + 1e-6).all() and (every < one - 1e-4).any()


def test_a_curved_network_takes_several_steps():
    keras.utils.set_random_seed(2)
    net = keras.Sequential([keras.layers.Dense(24, "tanh"), keras.layers.Dense(4)])
    y = np.argmax(net(40.0 * X), axis=1)

    def curved(x):
        return net(40.0 * x)

    broken = [
        np.mean(np.argmax(curved(DeepFool(9.0, steps=steps)(curved, X, y)), axis=1) != y)
        for steps in (1, 30)
    ]
    assert broken[0] < broken[1] and broken[1] > 0.9


def test_a_flat_network_gives_the_images_back():
    def flat(x):
        return tf.constant([[1.0, 0.0]]) + 0.0 * x[:, :1]

    np.testing.assert_array_equal(DeepFool()(flat, X, np.zeros(10, int)), X)


def test_it_knows_l2_only():
    with pytest.raises(InputError, match="Unknown `norm` 'linf'"):
        attacks.get("deepfool:norm=linf")
    # A radius meant for linf attacks is not taken for this one.
    assert attacks.get("deepfool", epsilon=8 / 255).epsilon == pytest.approx(60 / 255)
    assert attacks.get("deepfool", epsilon=0.5, norm="l2").epsilon == 0.5
    assert attacks.get("deepfool", epsilon=0.5, norm="linf").norm == "l2"
