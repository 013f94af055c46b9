"""Jacobian regularization against the closed form of a linear map."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import CLASSES, SIDE, W, keys, recording_network, terms, x

import soar_tf
from soar_tf.ops import random


@pytest.mark.parametrize("m", [1, 3])
def test_linear_map(m):
    # The Jacobian is W everywhere: R = C/(2m) sum |W^T v|^2.
    v = random.normal(keys(), (m, CLASSES)).numpy().astype("float64")
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    expected = CLASSES / (2 * m) * ((v @ W) ** 2).sum(axis=(1, 2))
    got = terms(soar_tf.methods.Jacobian(num_projections=str(m)))
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-4)
    assert got.penalty_weight == 0.01


def test_mean_is_half_the_squared_frobenius_norm():
    many = np.full((8000, SIDE), 0.5)
    got = terms(soar_tf.methods.Jacobian(), many, np.zeros(8000, int), own_keys=keys(8000))
    np.testing.assert_allclose(np.mean(got.penalty), 0.5 * (W**2).sum(), rtol=0.03)


def test_all_projections_come_from_one_pass():
    net, seen = recording_network()
    terms(soar_tf.methods.Jacobian(num_projections=4), net=net)
    assert len(seen) == 1


def test_weight_gradient_of_one_logit():
    # One logit w^T x: the sphere is {-1, 1}, R = |w|^2 / 2, and its gradient is w.
    net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(1, use_bias=False)])
    w = net.trainable_weights[0]
    with tf.GradientTape() as tape:
        got = terms(soar_tf.methods.Jacobian(), net=net, loss_fn=lambda _, z: z[:, 0])
        total = tf.reduce_mean(got.penalty)
    np.testing.assert_allclose(tape.gradient(total, w.value), w.numpy(), rtol=1e-4)
    np.testing.assert_allclose(got.penalty, 0.5 * np.sum(w.numpy() ** 2) * np.ones(len(x)), 1e-4)
