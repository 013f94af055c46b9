"""Sections 2 and 4.1 against direct computation, and against the package's own estimator."""

import math

import numpy as np
import pytest
import tensorflow as tf

from soar_tf import theory
from soar_tf.errors import InputError
from soar_tf.ops import curvature, gradients, random
from soar_tf.theory import bounds

RNG = np.random.default_rng(5)
D = 6
X = np.zeros((7, D))
X[:, 0] = RNG.normal(0.4, 1.0, size=7)
W_STAR = np.eye(D)[0]


def test_gradient_descent_learns_the_first_weight_and_leaves_the_others():
    start = RNG.normal(size=D)
    w = theory.gradient_descent(X, start, W_STAR, learning_rate=0.5, steps=300)
    assert w[0] == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_array_equal(w[1:], start[1:])  # to the last bit
    # One step by hand: the gradient of the first weight holds the second moment.
    moment = np.mean(X[:, 0] ** 2)
    one = theory.gradient_descent(X, start, W_STAR, learning_rate=0.5, steps=1)
    assert one[0] == pytest.approx(start[0] - 0.5 * moment * (start[0] - 1.0))


def test_the_attack_is_the_strongest_that_leaves_the_first_coordinate():
    w = RNG.normal(size=D)
    w[0] = 1.0  # learned
    attacked = theory.squared_loss(X + theory.irrelevant_attack(w, 0.3), w, W_STAR)
    np.testing.assert_allclose(attacked, 0.5 * 0.09 * np.abs(w[1:]).sum() ** 2)
    for _ in range(100):
        other = 0.3 * RNG.choice([-1.0, 1.0], size=D)
        other[0] = 0.0
        assert theory.squared_loss(X + other, w, W_STAR).max() <= attacked.max() + 1e-12


@pytest.mark.parametrize("d", [2, 10, 300])
def test_expected_attacked_loss_by_sampling(d):
    starts = 0.7 * RNG.normal(size=(4000, d))
    losses = 0.5 * 0.2**2 * np.abs(starts[:, 1:]).sum(axis=1) ** 2
    expected = theory.expected_attacked_loss(d, 0.2, 0.7)
    assert abs(losses.mean() - expected) < 5 * losses.std() / math.sqrt(len(losses))


def test_expected_attacked_loss_grows_with_the_square_of_d():
    def loss(d):
        return theory.expected_attacked_loss(d, 0.1, 2.0)

    assert loss(1) == 0.0
    assert loss(10**5) / loss(10**4) == pytest.approx(100, rel=1e-3)
    assert loss(10**5) == pytest.approx(0.1**2 * 2.0**2 * 10**10 / math.pi, rel=1e-4)


def test_ridge_solution_solves_the_linear_equations():
    # Where the gradient E[x x^T] (w - w*) + lambda w vanishes.
    second_moments = X.T @ X / len(X)
    solved = np.linalg.solve(second_moments + 0.3 * np.eye(D), second_moments @ W_STAR)
    np.testing.assert_allclose(theory.ridge_solution(X, W_STAR, 0.3), solved, atol=1e-14)
    # The paper's E[X_1] instead of E[X_1^2] would not.
    mean = np.mean(X[:, 0])
    assert abs(mean / (mean + 0.3) - solved[0]) > 0.05


def test_robustified_loss_is_the_loss_under_the_attack():
    w = RNG.normal(size=D)
    attacked = np.mean(theory.squared_loss(X + theory.irrelevant_attack(w, 0.3), w, W_STAR))
    assert theory.robustified_loss(X, w, W_STAR, 0.3) == pytest.approx(attacked, rel=1e-12)
    # With the paper's factor of the second term, 1 instead of 1/2, it would not be.
    printed = theory.robustified_loss(X, w, W_STAR, 0.3) + 0.5 * 0.09 * np.abs(w[1:]).sum() ** 2
    assert printed > 1.05 * attacked


def test_data_off_the_first_axis_are_refused():
    for call in (
        lambda x: theory.ridge_solution(x, W_STAR, 1.0),
        lambda x: theory.robustified_loss(x, W_STAR, W_STAR, 0.1),
    ):
        with pytest.raises(InputError, match="first coordinate"):
            call(np.ones((2, D)))


def logistic(seed=0, n=9, d=5):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)), np.arange(n) % 2, 1.5 * generator.normal(size=d)


def values_fn(y, w):
    w = tf.constant(w[:, None])
    sign = tf.constant(1.0 - 2.0 * y)
    return lambda x: tf.math.softplus(sign * tf.matmul(x, w)[:, 0])


def test_logistic_derivatives_are_those_of_the_loss():
    x, y, w = logistic()
    loss, gradient, hessian = bounds.quadratic_model(values_fn(y, w), tf.constant(x))
    r, u = theory.logistic_terms(x, y, w)
    np.testing.assert_allclose(theory.logistic_loss(x, y, w), loss, rtol=1e-12)
    np.testing.assert_allclose(r[:, None] * w, gradient, rtol=1e-10)
    np.testing.assert_allclose(u[:, None, None] * np.outer(w, w), hessian, rtol=1e-8, atol=1e-12)


def test_logistic_terms_of_a_sure_classifier_keep_their_digits():
    r, u = theory.logistic_terms([[50.0], [-50.0]], [1, 0], [1.0])
    np.testing.assert_allclose(r, [-math.exp(-50), math.exp(-50)], rtol=1e-12)
    np.testing.assert_allclose(u, [math.exp(-50)] * 2, rtol=1e-12)


def test_logistic_bound_is_the_trust_region_maximum():
    x, y, w = logistic(1)
    r, u = theory.logistic_terms(x, y, w)
    gradient = tf.constant(r[:, None] * w)
    hessian = tf.constant(u[:, None, None] * np.outer(w, w))
    exact = bounds.ball_maximum(gradient, hessian, math.sqrt(5) * 0.2)
    np.testing.assert_allclose(theory.logistic_bound(x, y, w, 0.2), exact, rtol=1e-10)


def test_logistic_penalty_is_the_estimators_mean():
    x, y, w = logistic(2, n=2)
    r, u = theory.logistic_terms(x, y, w)
    matrix = bounds.bordered_hessian(
        tf.constant(r[:, None] * w), tf.constant(u[:, None, None] * np.outer(w, w))
    )
    exact = curvature.bound_factor(5, 0.2) * bounds.expected_norm(matrix[:, :5])
    np.testing.assert_allclose(theory.logistic_penalty(x, y, w, 0.2), exact, rtol=1e-10)
    # The estimator of ops/curvature.py, over many directions: copies of each example.
    n = 20000
    for i in range(2):
        points = tf.constant(np.tile(x[i], (n, 1)), tf.float32)
        label, weights = np.full(n, y[i], "float32"), w.astype("float32")
        values = values_fn(label, weights)
        keys = random.example_keys(3, tf.range(n), purpose="theory")
        gradient = gradients.input_gradient(values, points)[1]
        sizes = curvature.curvature_norm(values, points, gradient, keys, hvp="exact").numpy()
        found = curvature.bound_factor(5, 0.2) * sizes
        error = 5 * found.std() / math.sqrt(n)
        assert abs(found.mean() - theory.logistic_penalty(x, y, w, 0.2)[i]) < error


def test_the_penalty_fades_as_the_classifier_grows_sure():
    x, y, w = logistic(3)
    right = theory.logistic_loss(x, y, w) < math.log(2)
    assert 0 < right.sum() < len(y)
    sure = theory.logistic_penalty(x, y, 30.0 * w, 0.2)
    assert (sure[right] < 0.05 * theory.logistic_penalty(x, y, w, 0.2)[right]).all()
    # Where it is wrong, the penalty grows with the weights instead.
    assert (sure[~right] > theory.logistic_penalty(x, y, w, 0.2)[~right]).all()
