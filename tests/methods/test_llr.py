"""LLR against closed forms and an independent Adam."""

import numpy as np
from linear_oracle import (
    cross_entropy,
    gradient,
    keys,
    quadratic,
    recording_network,
    terms,
    uniform_start,
    x,
)

import soar_tf


def test_quadratic_loss():
    # gamma(d) = d^T A d / 2: for a diagonal A it is largest in the ball's corners, and steps that
    # are longer than the ball end in the corner of the start's signs.
    diagonal = np.array([1.0, 2.0, 0.5, 4.0, 3.0])
    net, loss_fn = quadratic(np.diag(diagonal))
    corner = 0.05 * np.sign(uniform_start(keys(), 0.05))
    got = terms(soar_tf.methods.LLR(0.05, mu=0.3), net=net, loss_fn=loss_fn)
    gamma = 0.5 * 0.05**2 * diagonal.sum()
    slope = np.abs((corner * diagonal * x).sum(axis=1))
    np.testing.assert_allclose(got.penalty, gamma + 0.3 * slope, rtol=1e-4)
    assert got.penalty_weight == 4.0


def adam(start, ascent, epsilon, rate, steps):
    delta, mean, square = start, 0, 0
    for step in range(1, steps + 1):
        g = ascent(delta)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        update = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        delta = np.clip(delta + rate * update, -epsilon, epsilon)
    return delta


def test_softmax_linear_network():
    epsilon, loss, g = 0.2, cross_entropy(x), gradient(x)

    def ascent(delta):
        distance = cross_entropy(x + delta) - loss - (delta * g).sum(axis=1)
        return np.sign(distance)[:, None] * (gradient(x + delta) - g)

    delta = adam(uniform_start(keys(), epsilon), ascent, epsilon, 0.02, 4)
    slope = (delta * g).sum(axis=1)
    expected = np.abs(cross_entropy(x + delta) - loss - slope) + 0.5 * np.abs(slope)
    got = terms(soar_tf.methods.LLR(epsilon, mu=0.5, steps=4, step_size=0.02))
    np.testing.assert_allclose(got.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-3, atol=1e-6)


def test_perturbation_stays_in_the_ball_and_the_box():
    net, seen = recording_network()
    corner = np.where(x > 0.5, 1.0, 0.0)
    for norm in ("linf", "l2"):
        terms(soar_tf.methods.LLR(0.3, norm=norm, steps=2), corner, net=net)
        points = np.stack([point.numpy() for point in seen])
        size = np.abs(points - corner).max() if norm == "linf" else 0
        size = size or np.linalg.norm(points - corner, axis=-1).max()
        assert size <= 0.3 + 1e-6 and points.min() >= 0 and points.max() <= 1
        seen.clear()
