"""MI-FGSM: the momentum by hand, and its two limits."""

import numpy as np
import pytest
import tensorflow as tf

from soar_tf import attacks
from soar_tf.attacks import BIM, MIFGSM
from soar_tf.errors import InputError

W = np.array([2.0, -3.0, 0.5], np.float32)
X = np.full((2, 3), 0.5, np.float32)


@pytest.fixture(autouse=True)
def _eagerly():
    """A trace costs more than the few steps taken here; the contract tests run graphs."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def linear(x):
    other = tf.linalg.matvec(x, W) - 9.0
    return tf.stack([tf.zeros_like(other), other], axis=1)


def wavy(x):
    other = tf.reduce_sum(tf.sin(40.0 * x * W), axis=1) - 9.0
    return tf.stack([tf.zeros_like(other), other], axis=1)


def test_momentum_by_hand():
    # Gradients (2, -1, 1) and (-3, 0, 1), each of l1 norm 4, and decay 1:
    # g_1 = (.5, -.25, .25), g_2 = g_1 + (-.75, 0, .25) = (-.25, -.25, .5).
    attack = MIFGSM(epsilon=0.1, steps=10)  # step .01
    x = tf.constant(X[:1])
    point, memory = attack.advance(x, x, tf.constant([[2.0, -1.0, 1.0]]), attack.memory(x))
    np.testing.assert_allclose(point - x, [[0.01, -0.01, 0.01]], atol=1e-7)
    point, (momentum,) = attack.advance(point, x, tf.constant([[-3.0, 0.0, 1.0]]), memory)
    np.testing.assert_allclose(momentum, [[-0.25, -0.25, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(point - x, [[0.0, -0.02, 0.02]], atol=1e-7)


def test_decay_halves_the_past():
    attack, x = MIFGSM(decay=0.5), tf.constant(X[:1])
    _, (momentum,) = attack.advance(x, x, tf.constant([[0.0, 1.0, 0.0]]), (tf.ones_like(x),))
    np.testing.assert_allclose(momentum, [[0.5, 1.5, 0.5]])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_decay_it_is_bim(norm):
    y = np.zeros(2, int)
    ours = MIFGSM(0.1, norm, steps=5, step_size=0.03, decay=0.0)(wavy, X, y)
    np.testing.assert_allclose(ours, BIM(0.1, norm, steps=5, step_size=0.03)(wavy, X, y), atol=1e-6)
    if norm == "l2":
        with_momentum = MIFGSM(0.1, norm, steps=5, step_size=0.03)(wavy, X, y)
        assert np.abs(ours - with_momentum).max() > 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_optimum_of_a_linear_model_in_training_and_evaluation(norm):
    attack, y = MIFGSM(0.1, norm), np.zeros(2, int)
    best = 0.1 * (np.sign(W) if norm == "linf" else W / np.linalg.norm(W))
    keys = tf.zeros([2, 2], tf.uint32)
    for found in (attack(linear, X, y), attack.perturb(linear, tf.constant(X), y, keys)):
        np.testing.assert_allclose(found - X, np.tile(best, (2, 1)), atol=1e-6)


def test_a_tiny_gradient_counts_like_a_large_one():
    attack, x = MIFGSM(), tf.constant(X[:1])
    for scale in (1.0, 1e-30):
        gradient = scale * tf.constant([[3.0, 0.0, 1.0]])
        _, (momentum,) = attack.advance(x, x, gradient, attack.memory(x))
        np.testing.assert_allclose(momentum, [[0.75, 0.0, 0.25]], rtol=1e-5)


def test_arguments():
    assert MIFGSM(epsilon=0.1, steps=20).effective_step_size == pytest.approx(0.005)
    assert attacks.get("mifgsm:decay=0.9,target=second").decay == 0.9
    with pytest.raises(InputError, match="`decay` must be >= 0"):
        attacks.get("mifgsm:decay=-1")
