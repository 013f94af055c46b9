"""ELLE against its formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import (
    BATCH,
    SIDE,
    cross_entropy,
    keys,
    network,
    quadratic,
    recording_network,
    step_end,
    terms,
    uniform_start,
    x,
    y,
)

from soar_tf import methods
from soar_tf.ops import random


def segment(epsilon, centre=x):
    ends = [
        np.clip(centre + uniform_start(random.derive(keys(), name), epsilon), 0, 1)
        for name in ("segment_a", "segment_b")
    ]
    share = random.uniform(random.derive(keys(), "segment_share"), ()).numpy().astype("float64")
    return *ends, share


def nonlinearity(loss, epsilon):
    x_a, x_b, share = segment(epsilon)
    between = (1 - share)[:, None] * x_a + share[:, None] * x_b
    return (loss(between) - (1 - share) * loss(x_a) - share * loss(x_b)) ** 2


@pytest.mark.parametrize("start", ["zero", "random", "noise"])
def test_loss_at_the_step_and_squared_distance_from_the_chord(start):
    got = terms(methods.ELLE(0.2, lambda_=300, start=start))
    np.testing.assert_allclose(got.loss, cross_entropy(step_end(start)), rtol=1e-5)
    np.testing.assert_allclose(got.penalty, nonlinearity(cross_entropy, 0.2), rtol=1e-3, atol=1e-9)
    assert got.penalty_weight == 300.0


def test_quadratic_loss_in_closed_form():
    # Of x^T A x / 2 the chord's distance is a (1 - a) d^T A d / 2 with d = x_a - x_b.
    A = np.diag([1.0, 2.0, 0.5, 4.0, 3.0])
    net, loss_fn = quadratic(A)
    x_a, x_b, share = segment(0.3)
    d = x_a - x_b
    expected = (0.5 * share * (1 - share) * np.einsum("bi,ij,bj->b", d, A, d)) ** 2
    got = terms(methods.ELLE(0.3), net=net, loss_fn=loss_fn)
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-3, atol=1e-8)


def test_linear_loss_has_no_penalty():
    def linear(_, logits):
        return 3.0 * logits[:, 0] - logits[:, 2]

    np.testing.assert_allclose(terms(methods.ELLE(0.2), loss_fn=linear).penalty, 0.0, atol=1e-10)


def test_gradient_of_the_penalty_by_differences():
    net = network()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(terms(methods.ELLE(0.3), net=net).penalty)
    got = tape.gradient(total, net.trainable_weights[0].value).numpy()
    kernel, step = net.get_weights()[0].astype("float64"), 1e-5
    bias = net.get_weights()[1].astype("float64")

    def loss(points, K):
        z = points @ K + bias
        top = z.max(axis=1)
        return top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - z[np.arange(BATCH), y]

    for i, j in ((0, 0), (2, 1), (4, 2)):
        shift = np.zeros_like(kernel)
        shift[i, j] = step
        up, down = (
            nonlinearity(lambda points, K=kernel + sign * shift: loss(points, K), 0.3).sum()
            for sign in (1, -1)
        )
        np.testing.assert_allclose(got[i, j], (up - down) / (2 * step), rtol=2e-3, atol=1e-6)


def test_points_stay_in_the_ball_and_the_box():
    net, seen = recording_network()
    corner = np.where(x > 0.5, 1.0, 0.0)
    terms(methods.ELLE(0.3), corner, net=net)
    points = next(point.numpy() for point in seen if len(point) == 3 * BATCH)
    assert np.abs(points - np.tile(corner, (3, 1))).max() <= 0.3 + 1e-6
    assert points.min() >= 0 and points.max() <= 1


def test_half_precision_sees_the_same_penalty():
    found = {}
    for policy in ("float32", "mixed_bfloat16"):
        net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(3, dtype=policy)])
        net.set_weights(network().get_weights())
        found[policy] = terms(methods.ELLE(0.1), net=net).penalty.numpy()
    np.testing.assert_allclose(found["mixed_bfloat16"], found["float32"], rtol=1e-5)
