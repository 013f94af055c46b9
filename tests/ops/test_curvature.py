"""The curvature norm of a quadratic, whose bordered Hessian is known."""

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.ops import curvature, gradients, norms, random

RNG = np.random.default_rng(4)
D, N = 5, 3
M = RNG.normal(size=(D, D))
A = M + M.T
B = RNG.normal(size=D)
X = RNG.normal(size=(N, D)).astype("float32")
KEYS = random.example_keys(11, tf.range(N), purpose="curvature")


def quadratic(x):
    a, b = tf.cast(A, x.dtype), tf.cast(B, x.dtype)
    return 0.5 * tf.reduce_sum(x * (x @ a), axis=1) + tf.linalg.matvec(x, b)


def estimate(x=X, keys=KEYS, **options):
    x = tf.constant(x)
    gradient = gradients.input_gradient(quadratic, x)[1]
    return curvature.curvature_norm(quadratic, x, gradient, keys, **options).numpy()


def drawn(direction=0):
    """z_d, z_1 and h of each example, as the documentation of the noise's purposes says."""
    keys = random.derive(KEYS, direction)
    z = random.normal(keys, (D,)).numpy().astype(np.float64)
    z_1 = random.normal(random.derive(keys, "z_1"), ()).numpy().astype(np.float64)
    return z, z_1


def hand(z, z_1, full_vector=False):
    """|A z_d + z_1 g|, or the norm of all of Hz."""
    gradient = X @ A + B
    image = z @ A + z_1[:, None] * gradient
    last = np.sum(gradient * z, axis=1) + z_1
    square = np.sum(image**2, axis=1) + (last**2 if full_vector else 0.0)
    return np.sqrt(square)


@pytest.mark.parametrize("hvp", curvature.HVPS)
@pytest.mark.parametrize("full_vector", [False, True])
def test_one_direction_by_hand(hvp, full_vector):
    # A large alpha keeps h away from rounding; for a quadratic the difference is exact in any h.
    found = estimate(hvp=hvp, full_vector=full_vector, alpha=1.0, h_min=0.1)
    np.testing.assert_allclose(found, hand(*drawn(), full_vector), rtol=1e-4)


def test_directions_are_averaged():
    values = np.stack([hand(*drawn(direction)) for direction in range(3)])
    found = estimate(num_directions=3, hvp="exact")
    np.testing.assert_allclose(found, values.mean(axis=0), rtol=1e-4)
    found = estimate(num_directions=3, hvp="exact", estimator="root_mean_square")
    np.testing.assert_allclose(found, np.sqrt((values**2).mean(axis=0)), rtol=1e-4)


def test_step_is_drawn_from_zero_to_alpha_and_floored():
    # A loss whose gradient is a step function at distance 0.5 tells how far h went.
    steps = []

    def spy(values_fn, x, direction, h, *, gradient=None):
        steps.append(h.numpy())
        np.testing.assert_allclose(norms.norm(direction, "l2"), np.ones(len(x)), rtol=1e-5)
        return tf.zeros_like(x)

    x = tf.zeros([500, D])
    keys = random.example_keys(0, tf.range(500), purpose="h")
    original = gradients.hvp_finite_difference
    gradients.hvp_finite_difference = spy
    try:
        curvature.curvature_norm(quadratic, x, x, keys, alpha=0.03)
    finally:
        gradients.hvp_finite_difference = original
    (h,) = steps
    assert h.min() == np.float32(curvature.MINIMUM_STEP) and 0.0299 < h.max() <= 0.03
    expected = (0.03**2 / 2 + curvature.MINIMUM_STEP**2 / 2) / 0.03  # mean of max(U, h_min)
    assert abs(h.mean() - expected) < 5 * 0.03 / np.sqrt(12 * 500)


def test_root_mean_square_of_the_full_vector_is_the_frobenius_norm():
    # Many examples at one point stand for many directions.
    n = 20000
    x = np.tile(X[:1], (n, 1))
    keys = random.example_keys(5, tf.range(n), purpose="frobenius")
    gradient = X[0] @ A + B
    bordered = np.block([[A, gradient[:, None]], [gradient[None, :], np.ones((1, 1))]])
    frobenius = np.linalg.norm(bordered)
    values = estimate(x, keys, hvp="exact", full_vector=True).astype(np.float64)
    square, error = np.mean(values**2), np.std(values**2) / np.sqrt(n)
    assert abs(square - frobenius**2) < 5 * error
    # E|Hz| is below the Frobenius norm: eq. 8 of the paper is an inequality.
    assert values.mean() + 5 * values.std() / np.sqrt(n) < frobenius
    # Eq. 11 leaves out the last component, so it sees the other rows only.
    without = estimate(x, keys, hvp="exact").astype(np.float64)
    square, error = np.mean(without**2), np.std(without**2) / np.sqrt(n)
    assert abs(square - np.linalg.norm(bordered[:-1]) ** 2) < 5 * error


def test_independent_of_the_batch():
    rows = np.array([2, 0])
    whole, part = estimate(), estimate(X[rows], tf.gather(KEYS, rows))
    np.testing.assert_allclose(part, whole[rows], rtol=1e-4)


@pytest.mark.parametrize("hvp", curvature.HVPS)
def test_a_flat_loss_has_norm_zero_and_a_finite_gradient(hvp):
    w = tf.Variable(0.0)

    def values(x):
        return w * tf.reduce_sum(x**2, axis=1)

    with tf.GradientTape() as tape:
        gradient = gradients.input_gradient(values, tf.constant(X))[1]
        size = tf.reduce_sum(
            curvature.curvature_norm(values, tf.constant(X), gradient, KEYS, hvp=hvp)
        )
    assert float(size) == 0.0 and np.isfinite(tape.gradient(size, w))


def test_bound_factor():
    # CIFAR at 8/255: d eps^2 + 1 = 3072 * 64 / 65025 + 1 = 4.0235.
    assert curvature.bound_factor(3072, 8 / 255) == pytest.approx(4.0235 / 2, abs=1e-4)
    assert curvature.bound_factor(3072, 8 / 255, "l2") == pytest.approx((64 / 65025 + 1) / 2)
    assert curvature.bound_factor(10, 0.0) == 0.5
    assert curvature.bound_factor(224 * 224 * 3, 8 / 255) == pytest.approx(149.15 / 2, abs=0.01)


def test_clip_norm():
    size = tf.constant([5.0, 20.0])
    np.testing.assert_array_equal(curvature.clip_norm(size, None), size)
    with tf.GradientTape() as tape:
        tape.watch(size)
        clipped = curvature.clip_norm(size, 10.0)
    np.testing.assert_array_equal(clipped, [5.0, 10.0])
    np.testing.assert_array_equal(tape.gradient(clipped, size), [1.0, 0.0])


def test_clip_norm_of_a_batch():
    # The mean of 5, 20 and 35 is 20: to be 8 at most, all are multiplied by 2/5, gradients too.
    size = tf.constant([5.0, 20.0, 35.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(size)
        clipped = curvature.clip_norm(size, 8.0, "batch")
        below = curvature.clip_norm(size, 21.0, "batch")
    np.testing.assert_allclose(clipped, [2.0, 8.0, 14.0], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(clipped, size), [0.4, 0.4, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(below, size)
    np.testing.assert_array_equal(tape.gradient(below, size), [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(curvature.clip_norm(size, None, "batch"), size)
    np.testing.assert_array_equal(curvature.clip_norm(tf.zeros([3]), 8.0, "batch"), [0.0] * 3)
    with pytest.raises(InputError, match="scope"):
        curvature.clip_norm(size, 8.0, "mean")


@pytest.mark.parametrize(
    "options", [{"hvp": "exakt"}, {"estimator": "mean"}, {"hvp": "finite-difference"}]
)
def test_unknown_options(options):
    with pytest.raises(InputError, match=next(iter(options))):
        estimate(**options)


@pytest.mark.parametrize("norm", ["l1", "l3"])
def test_bound_factor_knows_two_norms(norm):
    with pytest.raises(InputError, match="norm"):
        curvature.bound_factor(10, 0.1, norm)
