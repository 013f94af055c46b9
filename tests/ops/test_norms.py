"""Norms and steepest directions against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.ops import norms

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3, 4, 2))
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


@pytest.mark.parametrize("name", norms.NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norm(name, dtype):
    expected = np.linalg.norm(X.reshape(5, -1), ORDERS[name], axis=1)
    ours = norms.norm(tf.constant(X, dtype), name)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("name", norms.NAMES)
def test_norm_by_hand(name):
    expected = {"linf": [4.0, 0.0], "l2": [5.0, 0.0], "l1": [7.0, 0.0]}[name]
    np.testing.assert_allclose(norms.norm(tf.constant([[3.0, -4.0], [0.0, 0.0]]), name), expected)


def test_l2_gradient_is_the_unit_vector_and_zero_at_zero():
    x = tf.constant([[3.0, -4.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(norms.norm(x, "l2"))
    np.testing.assert_allclose(tape.gradient(total, x), [[0.6, -0.8], [0.0, 0.0]], rtol=1e-6)


def test_normalize_l2():
    x = tf.constant(np.concatenate([X, np.zeros_like(X[:1])]), tf.float32)
    unit = norms.normalize_l2(x).numpy()
    np.testing.assert_allclose(norms.norm(tf.constant(unit[:5]), "l2"), np.ones(5), rtol=1e-6)
    np.testing.assert_array_equal(unit[5], np.zeros_like(X[0]))
    np.testing.assert_allclose(unit[0], X[0] / np.linalg.norm(X[0]), rtol=1e-5)


@pytest.mark.parametrize("name", norms.NAMES)
def test_steepest_direction_reaches_the_dual_norm(name):
    # max of v.g over the unit ball is the dual norm of g.
    g = tf.constant(X, tf.float32)
    v = norms.steepest_direction(g, name)
    np.testing.assert_allclose(norms.norm(v, name), np.ones(5), rtol=1e-6)
    gained = np.sum(v.numpy() * X, axis=(1, 2, 3))
    np.testing.assert_allclose(
        gained, np.linalg.norm(X.reshape(5, -1), DUAL[name], axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("name", norms.NAMES)
def test_steepest_direction_of_zero_is_zero(name):
    zero = tf.zeros([2, 3])
    np.testing.assert_array_equal(norms.steepest_direction(zero, name), zero)


@pytest.mark.parametrize("scale", [1e-30, 1e-37, 1e30])
def test_tiny_and_huge_gradients_keep_their_direction(scale):
    g = tf.constant([[3.0, -4.0]]) * scale
    np.testing.assert_allclose(norms.steepest_direction(g, "l2"), [[0.6, -0.8]], rtol=1e-5)


def test_l1_takes_one_coordinate():
    g = tf.constant([[1.0, -3.0, 2.0]])
    np.testing.assert_array_equal(norms.steepest_direction(g, "l1"), [[0.0, -1.0, 0.0]])


def test_sparse_steps_move_several_coordinates_equally():
    g = tf.constant([[1.0, -3.0, 2.0, 0.5], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[0.0, -0.5, 0.5, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_array_equal(norms.sparse_direction(g, 0.5), expected)
    one = norms.sparse_direction(tf.reshape(g, [3, 2, 2]), 0.01)
    np.testing.assert_array_equal(one[0], [[0.0, -1.0], [0.0, 0.0]])


def test_per_example_broadcasts():
    values = norms.per_example(tf.constant([1.0, 2.0]), tf.zeros([2, 3, 4, 5]))
    assert values.shape == (2, 1, 1, 1)


@pytest.mark.parametrize("function", [norms.norm, norms.steepest_direction])
def test_unknown_norm(function):
    with pytest.raises(InputError, match=r"Unknown `norm` 'l3'.*Allowed: l1, l2, linf"):
        function(tf.zeros([1, 2]), "l3")


def test_the_top_direction_moves_as_many_coordinates_as_asked():
    gradient = np.array([[4.0, -3.0, 0.0, 1.0], [1.0, 1.0, -1.0, 0.5], [0.0] * 4, [0.0, 2, 0, 0]])
    counts = tf.constant([2, 1, 3, 4])
    found = norms.top_direction(tf.constant(gradient), counts).numpy()
    # Ties with the last one move, too; slopes of 0 never do.
    expected = [[1 / 2, -1 / 2, 0, 0], [1 / 3, 1 / 3, -1 / 3, 0], [0] * 4, [0, 1, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    empty = norms.top_direction(tf.zeros([0, 4]), tf.zeros([0], tf.int32))
    assert empty.shape == (0, 4)
