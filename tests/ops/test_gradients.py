"""Derivatives of a quadratic, which are known exactly, and of values that ignore the input."""

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.ops import gradients

RNG = np.random.default_rng(3)
D = 5
M = RNG.normal(size=(D, D))
A = tf.constant(M + M.T)
B = tf.constant(RNG.normal(size=D))
X = tf.constant(RNG.normal(size=(4, D)))
V = tf.constant(RNG.normal(size=(4, D)))


def quadratic(x):
    """f(x) = x'Ax/2 + b'x; gradient Ax + b, Hessian A."""
    a, b = tf.cast(A, x.dtype), tf.cast(B, x.dtype)
    return 0.5 * tf.reduce_sum(x * (x @ a), axis=1) + tf.linalg.matvec(x, b)


def test_input_gradient():
    values, gradient = gradients.input_gradient(quadratic, X)
    np.testing.assert_allclose(gradient, X @ A + B, rtol=1e-12)
    np.testing.assert_allclose(values, quadratic(X))


def test_input_gradient_is_per_example():
    # Each example's gradient is that of its own value: no mean over the batch.
    alone = gradients.input_gradient(quadratic, X[:1])[1]
    np.testing.assert_allclose(gradients.input_gradient(quadratic, X)[1][:1], alone, rtol=1e-12)


@pytest.mark.parametrize("h", [1e-3, 0.1, 10.0])
def test_finite_difference_of_a_quadratic_is_exact(h):
    found = gradients.hvp_finite_difference(quadratic, X, V, h)
    np.testing.assert_allclose(found, V @ A, rtol=1e-9)


def test_finite_difference_in_float32_with_a_step_per_example():
    x, v = tf.cast(X, tf.float32), tf.cast(V, tf.float32)
    h = tf.constant([1e-2, 0.1, 1.0, 3.0])
    gradient = gradients.input_gradient(quadratic, x)[1]
    found = gradients.hvp_finite_difference(quadratic, x, v, h, gradient=gradient)
    error = np.abs(found - (V @ A).numpy()).max(axis=1)
    # The gradient is rounded to about 1e-6; the difference divides that by h.
    assert (error < 5e-6 / h.numpy() + 1e-5).all()


def test_finite_difference_uses_the_given_gradient():
    zero = tf.zeros_like(X)
    found = gradients.hvp_finite_difference(quadratic, X, V, 0.5, gradient=zero)
    np.testing.assert_allclose(found, 2.0 * (X @ A + B) + V @ A, rtol=1e-9)


def test_exact_hvp():
    np.testing.assert_allclose(gradients.hvp_exact(quadratic, X, V), V @ A, rtol=1e-12)


def test_exact_hvp_of_a_network_agrees_with_a_central_difference():
    w1, w2 = tf.constant(RNG.normal(size=(D, 7))), tf.constant(RNG.normal(size=(7, 3)))

    def values(x):
        return tf.reduce_logsumexp(tf.tanh(x @ w1) @ w2, axis=1)

    h = 1e-5
    up, down = (gradients.input_gradient(values, X + s * h * V)[1] for s in (1, -1))
    np.testing.assert_allclose(
        gradients.hvp_exact(values, X, V), (up - down) / (2 * h), rtol=1e-6, atol=1e-8
    )


def test_image_shapes_and_graph():
    @tf.function
    def both(x, v, h):
        def values(z):
            return quadratic(tf.reshape(z, [-1, D]))

        return (
            gradients.hvp_finite_difference(values, x, v, h),
            gradients.hvp_exact(values, x, v),
        )

    x, v = (tf.reshape(t, [4, 1, D, 1]) for t in (X, V))
    for found in both(x, v, tf.constant([0.1, 0.2, 0.3, 0.4], tf.float64)):
        assert found.shape == (4, 1, D, 1)
        np.testing.assert_allclose(tf.reshape(found, [4, D]), V @ A, rtol=1e-9)


def test_values_that_ignore_the_input_have_gradient_zero():
    def constant(x):
        return tf.ones([4], tf.float64)

    np.testing.assert_array_equal(gradients.input_gradient(constant, X)[1], np.zeros((4, D)))
    np.testing.assert_array_equal(gradients.hvp_exact(constant, X, V), np.zeros((4, D)))

    def linear(x):  # a gradient, but no second derivative
        return tf.linalg.matvec(x, B)

    np.testing.assert_array_equal(gradients.hvp_exact(linear, X, V), np.zeros((4, D)))


@pytest.mark.parametrize("hvp", ["finite", "exact"])
def test_hvps_are_differentiable_by_the_weights(hvp):
    # f(x) = w |x|^2 / 2: the product is w v, so its sum has the derivative sum(v) by w.
    w = tf.Variable(1.5, dtype=tf.float64)

    def values(x):
        return 0.5 * w * tf.reduce_sum(x**2, axis=1)

    with tf.GradientTape() as tape:
        if hvp == "finite":
            product = gradients.hvp_finite_difference(values, X, V, 0.1)
        else:
            product = gradients.hvp_exact(values, X, V)
        total = tf.reduce_sum(product)
    np.testing.assert_allclose(tape.gradient(total, w), tf.reduce_sum(V), rtol=1e-9)


def test_input_and_weight_gradient():
    w, unused = tf.Variable(B), tf.Variable(1.0)

    def values(x):
        return tf.linalg.matvec(x, w)

    found, gradient, by_weights = gradients.input_and_weight_gradient(values, X, [w, unused])
    np.testing.assert_allclose(found, tf.linalg.matvec(X, B))
    np.testing.assert_allclose(gradient, np.tile(B, (4, 1)))
    np.testing.assert_allclose(by_weights[0], tf.reduce_sum(X, axis=0))
    assert by_weights[1] is None
