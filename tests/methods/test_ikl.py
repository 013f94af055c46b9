"""IKL against formulas, and its decoupled form against TRADES."""

import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import (
    SIDE,
    W,
    b,
    cross_entropy,
    keys,
    kl,
    network,
    probabilities,
    sign_steps,
    softmax,
    terms,
    x,
)

from soar_tf import methods
from soar_tf.ops import losses, random


def adversarial(steps, epsilon=0.2):
    noise = random.normal(random.derive(keys(), 0), (SIDE,)).numpy().astype("float64")
    start = np.clip(x + 0.001 * noise, x - epsilon, x + epsilon)
    p = probabilities(x)
    return sign_steps(start, x, lambda at: (probabilities(at) - p) @ W, steps, epsilon / 4, epsilon)


def pairwise(weights, z, z_adv):
    """The authors' form: a weighted square of the differences of all pairs of logits."""
    pairs, pairs_adv = (v[:, :, None] - v[:, None, :] for v in (z, z_adv))
    products = weights[:, :, None] * weights[:, None, :]
    return 0.25 * (products * (pairs - pairs_adv) ** 2).sum(axis=(1, 2))


@pytest.mark.parametrize("symmetric", [True, False])
def test_against_the_authors_pairwise_form(symmetric):
    end = adversarial(3)
    z, z_adv = x @ W.T + b, end @ W.T + b
    expected = 2.0 * kl(softmax(z), softmax(z_adv)) + 5.0 * pairwise(softmax(z / 4), z, z_adv)
    got = terms(methods.IKL(0.2, alpha=2, beta=5, symmetric=symmetric, steps=3))
    np.testing.assert_allclose(got.loss, cross_entropy(x), rtol=1e-5)
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-3, atol=1e-6)
    assert got.penalty_weight == 1.0


def kernel_gradient(method):
    net = network()
    with tf.GradientTape() as tape:
        got = terms(method, net=net)
        total = tf.reduce_sum(got.loss + got.penalty_weight * got.penalty)
    return tape.gradient(total, net.trainable_weights[0].value).numpy()


def test_decoupled_divergence_has_the_gradient_of_trades():
    decoupled = methods.IKL(0.2, 3, 3, temperature=1, symmetric=False, steps=2)
    expected = kernel_gradient(methods.TRADES(0.2, beta=3, steps=2))
    np.testing.assert_allclose(kernel_gradient(decoupled), expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_the_symmetric_form():
    # d = z - z^ and w fixed: the variance pulls z by w (d - w.d) and z^ by minus that.
    end = adversarial(2)
    z, z_adv = x @ W.T + b, end @ W.T + b
    p, q, w, d = softmax(z), softmax(z_adv), softmax(z / 4), z - z_adv
    pull = w * (d - (w * d).sum(axis=1, keepdims=True))
    labels = np.eye(3)[np.array([0, 1, 2, 1])]
    expected = x.T @ (p - labels + 5 * pull) + end.T @ (2 * (q - p) - 5 * pull)
    got = kernel_gradient(methods.IKL(0.2, alpha=2, beta=5, steps=2))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_weighted_variance_by_hand():
    weights = tf.constant([[0.25, 0.75], [1.0, 0.0]])
    got = losses.weighted_variance(weights, tf.constant([[4.0, 0.0], [3.0, 7.0]]))
    np.testing.assert_allclose(got, [3.0, 0.0])
