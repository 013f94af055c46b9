"""CURE against formulas."""

import numpy as np
import pytest
from linear_oracle import (
    SIDE,
    W,
    cross_entropy,
    draw,
    gradient,
    quadratic,
    recording_network,
    terms,
    x,
)

import soar_tf


def expected(g, z, squared):
    change = gradient(x + z) - g
    norm = np.linalg.norm(change, axis=1)
    return norm**2 if squared else norm


@pytest.mark.parametrize("squared", [False, True])
def test_against_gradients_by_formula(squared):
    g = gradient(x)
    z = 0.7 * np.sign(g) / np.sqrt(SIDE)
    got = terms(soar_tf.methods.CURE(lambda_=2, h="0.7", squared=squared))
    np.testing.assert_allclose(got.loss, cross_entropy(x), rtol=1e-5)
    np.testing.assert_allclose(got.penalty, expected(g, z, squared), rtol=1e-4)
    assert got.penalty_weight == 2.0


def test_direction_has_length_h_over_the_coordinates_with_a_gradient():
    reduced = W.copy()
    reduced[:, 0] = 0
    net, seen = recording_network(reduced)
    terms(soar_tf.methods.CURE(h=0.8), net=net)
    z = seen[1].numpy() - x
    np.testing.assert_allclose(z[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(z[:, 1:]), 0.8 / 2, rtol=1e-5)
    assert len(seen) == 2


def test_quadratic_loss():
    # The gradient is A x, so that R = |A z| for any h.
    root = draw((SIDE, SIDE), 5)
    A = root @ root.T
    net, loss_fn = quadratic(A)
    z = 3.0 * np.sign(x @ A) / np.sqrt(SIDE)
    got = terms(soar_tf.methods.CURE(), net=net, loss_fn=loss_fn)
    np.testing.assert_allclose(got.penalty, np.linalg.norm(z @ A, axis=1), rtol=1e-4)


def test_zero_gradient_gives_a_zero_penalty():
    net, loss_fn = quadratic(np.zeros((SIDE, SIDE)))
    np.testing.assert_array_equal(
        terms(soar_tf.methods.CURE(), net=net, loss_fn=loss_fn).penalty, 0
    )
