"""TRADES against formulas and an independent ascent of the divergence."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import (
    SIDE,
    W,
    cross_entropy,
    keys,
    kl,
    network,
    probabilities,
    recording_network,
    sign_steps,
    terms,
    x,
)

import soar_tf
from soar_tf.errors import InputError
from soar_tf.ops import random


def two_logits():
    """Logits (0, x)."""
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    net.set_weights([np.array([[0.0, 1.0]])])
    return net


def with_point(method, x_adv):
    """The method, with the attack's result given."""
    method.attack.perturb = lambda *args, **kwargs: tf.constant(x_adv, tf.float32)
    return method


def test_divergence_by_hand():
    # p = (1/2, 1/2) and q = (1/4, 3/4): KL = (ln 2 + ln 2/3) / 2 = ln(4/3) / 2.
    method = with_point(soar_tf.methods.TRADES(), [[np.log(3.0)]])
    got = terms(method, np.zeros((1, 1)), np.array([0]), two_logits())
    np.testing.assert_allclose(got.penalty, [0.5 * np.log(4 / 3)], rtol=1e-5)
    np.testing.assert_allclose(got.loss, [np.log(2.0)], rtol=1e-5)
    assert got.penalty_weight == 6.0


def test_gradient_flows_through_both_points():
    # With logits (0, w x): d KL / dw = sum_k p_k (log p_k/q_k - KL) dz_k + (q_k - p_k) dz^_k,
    # where dz = (0, x), dz^ = (0, x^).
    net, point, moved = two_logits(), 0.5, 0.9
    method = with_point(soar_tf.methods.TRADES(), [[moved]])
    with tf.GradientTape() as tape:
        got = terms(method, np.array([[point]]), np.array([0]), net)
        total = tf.reduce_sum(got.penalty)
    gradient = tape.gradient(total, net.trainable_weights[0].value).numpy()[0, 1]
    p, q = 1 / (1 + np.exp(-point)), 1 / (1 + np.exp(-moved))
    value = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    expected = p * (np.log(p / q) - value) * point + (q - p) * moved
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


@pytest.mark.parametrize("epsilon", [0.1, 0.0])
def test_against_an_independent_ascent(epsilon):
    # The divergence's gradient by x^ is (q - p) W.
    method = soar_tf.methods.TRADES(epsilon, beta=2, steps=3)
    noise = random.normal(random.derive(keys(), 0), (SIDE,)).numpy().astype("float64")
    start = np.clip(x + 0.001 * noise, x - epsilon, x + epsilon)
    p = probabilities(x)
    end = sign_steps(
        start, x, lambda point: (probabilities(point) - p) @ W, 3, epsilon / 4, epsilon
    )
    got = terms(method)
    np.testing.assert_allclose(got.loss, cross_entropy(x), rtol=1e-5)
    np.testing.assert_allclose(got.penalty, kl(p, probabilities(end)), rtol=1e-3, atol=1e-7)


def test_both_points_are_normalised_together():
    inner = network()
    net = keras.Sequential(
        [keras.Input((SIDE,)), keras.layers.BatchNormalization(momentum=0.9), inner]
    )
    x_adv = x + 0.1
    both = np.concatenate([x, x_adv])
    got = terms(with_point(soar_tf.methods.TRADES(), x_adv), net=net)
    scaled = (both - both.mean(axis=0)) / np.sqrt(both.var(axis=0) + 1e-3)
    p, q = np.split(probabilities(scaled), 2)
    np.testing.assert_allclose(got.penalty, kl(p, q), rtol=1e-4)
    np.testing.assert_allclose(net.layers[0].moving_mean, 0.1 * both.mean(axis=0), rtol=1e-5)


def test_weight_regularization_counts_once_with_batchnorm():
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((SIDE,)),
            layers.BatchNormalization(),
            layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5)),
        ]
    )
    forward = soar_tf.methods.Forward(net)
    got = soar_tf.methods.TRADES(steps=1).terms(
        forward,
        tf.constant(x, tf.float32),
        None,
        loss_fn=lambda _, logits: tf.reduce_sum(logits, axis=1),
        keys=keys(),
    )
    added = forward.added_losses(got.logits)
    np.testing.assert_allclose(added, [0.5 * np.sum(net.layers[1].kernel.numpy() ** 2)], rtol=1e-5)


def test_clean_images_are_forwarded_once_if_both_modes_are_one_function():
    net, seen = recording_network()
    method = soar_tf.methods.TRADES(0.1, steps=1)
    got = terms(method, net=net)
    assert len(seen) == 3  # x, the step's start, and x^
    expected = terms(method)
    np.testing.assert_allclose(got.penalty, expected.penalty, rtol=1e-4)
    np.testing.assert_allclose(got.logits, expected.logits, rtol=1e-5)


def test_half_precision_finds_the_same_point():
    found = {}
    for policy in ("float32", "mixed_bfloat16"):
        net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(3, dtype=policy)])
        net.set_weights(network().get_weights())
        found[policy] = terms(soar_tf.methods.TRADES(0.1, steps=2), net=net).penalty.numpy()
    assert np.all(found["float32"] > 0.005)
    np.testing.assert_allclose(found["mixed_bfloat16"], found["float32"], rtol=0.2)


def test_one_logit_is_refused():
    net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(1)])
    with pytest.raises(InputError, match="at least 2 classes"):
        terms(soar_tf.methods.TRADES(), net=net)
