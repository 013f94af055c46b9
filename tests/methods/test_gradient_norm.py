"""Gradient regularization against formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import SIDE, cross_entropy, gradient, terms, x

import soar_tf

w = np.array([0.5, -1.0, 2.0, 0.0, 0.25])


def linear():
    """A network and a loss for which the loss is w^T x."""
    net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(1, use_bias=False)])
    net.set_weights([w[:, None]])
    return {"net": net, "loss_fn": lambda _, outputs: outputs[:, 0]}


@pytest.mark.parametrize(("norm", "dual"), [("linf", 3.75), ("l2", np.linalg.norm(w))])
def test_linear_loss(norm, dual):
    # The loss grows by exactly epsilon |w|_q inside the ball: l1 against linf, l2 against l2.
    method = soar_tf.methods.GradientNorm(0.1, norm=norm)
    np.testing.assert_allclose(terms(method, **linear()).penalty, 0.1 * dual, rtol=1e-5)
    method = soar_tf.methods.GradientNorm(0.1, norm=norm, mode="finite_difference", h="0.02")
    expected = 0.5 * (0.1 * dual) ** 2
    np.testing.assert_allclose(terms(method, **linear()).penalty, expected, rtol=1e-4)
    assert not method.second_order


@pytest.mark.parametrize("mode", ["double_backprop", "finite_difference"])
def test_its_weight_gradient(mode):
    # d (eps |w|_1) / dw = eps sign w; of its square's half, eps^2 |w|_1 sign w.
    network = linear()
    with tf.GradientTape() as tape:
        got = terms(soar_tf.methods.GradientNorm(0.1, mode=mode), **network)
        total = tf.reduce_mean(got.penalty)
    gradient = tape.gradient(total, network["net"].trainable_weights[0].value)[:, 0]
    factor = 0.1 if mode == "double_backprop" else 0.1**2 * np.abs(w).sum()
    np.testing.assert_allclose(gradient, factor * np.sign(w), rtol=1e-4, atol=1e-6)


def test_softmax_linear_network():
    g = gradient(x)
    got = terms(soar_tf.methods.GradientNorm(0.1, lambda_=3))
    np.testing.assert_allclose(got.loss, cross_entropy(x), rtol=1e-5)
    np.testing.assert_allclose(got.penalty, 0.1 * np.abs(g).sum(axis=1), rtol=1e-4)
    assert got.penalty_weight == 3.0
    got = terms(soar_tf.methods.GradientNorm(0.1, mode="finite_difference"))
    growth = (cross_entropy(x + 0.01 * np.sign(g)) - cross_entropy(x)) / 0.01
    np.testing.assert_allclose(got.penalty, 0.5 * (0.1 * growth) ** 2, rtol=1e-3)
