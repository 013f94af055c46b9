"""The ladder of section 4: rungs against independent oracles, inequalities as properties."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from soar_tf.errors import InputError
from soar_tf.ops import losses
from soar_tf.theory import bounds

RNG = np.random.default_rng(8)


def random_quadratics(count, d, generator=RNG, rank=None, scale=1.0):
    gradient = generator.normal(size=(count, d))
    if rank is None:
        m = generator.normal(size=(count, d, d))
        hessian = m + np.swapaxes(m, 1, 2)
    else:  # positive semidefinite, as for cross-entropy of a piecewise linear network
        m = generator.normal(size=(count, d, rank))
        hessian = m @ np.swapaxes(m, 1, 2)
    return tf.constant(gradient), tf.constant(scale * hessian)


def value(gradient, hessian, delta):
    """q of many points delta `[S, d]` for one example, written apart from the package."""
    return delta @ gradient + 0.5 * np.einsum("si,ij,sj->s", delta, hessian, delta)


def grid(d, points):
    return np.array(list(itertools.product(np.linspace(-1, 1, points), repeat=d)))


def check_inequalities(rungs, tolerance=1e-9):
    for lower, upper in bounds.INEQUALITIES:
        if lower in rungs and upper in rungs:
            low, high = rungs[lower].numpy(), rungs[upper].numpy()
            worst = (low - high).max() / max(1.0, np.abs(high).max())
            assert worst <= tolerance, (lower, upper, worst)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 5),
    rank=st.sampled_from([None, 1, 3]),
    epsilon=st.sampled_from([1e-3, 0.03, 0.3, 1.0, 4.0]),
    scale=st.sampled_from([0.0, 0.1, 1.0, 100.0]),
)
def test_every_inequality_holds_for_random_quadratics(seed, d, rank, epsilon, scale):
    generator = np.random.default_rng(seed)
    gradient, hessian = random_quadratics(8, d, generator, rank, scale)
    rungs = bounds.ladder(gradient, hessian, epsilon)
    assert set(itertools.chain(*bounds.INEQUALITIES)) == set(rungs)
    check_inequalities(rungs)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_every_inequality_holds_for_small_networks(activation):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((2, 2, 1), dtype="float64"),
            keras.layers.Flatten(dtype="float64"),
            keras.layers.Dense(6, activation, dtype="float64"),
            keras.layers.Dense(3, dtype="float64"),
        ]
    )
    network.set_weights([3.0 * weight for weight in network.get_weights()])
    x = tf.constant(RNG.uniform(size=(20, 2, 2, 1)))
    y = tf.constant(np.arange(20) % 3)

    def values(point):
        return losses.cross_entropy(y, network(point))

    loss, gradient, hessian = bounds.quadratic_model(values, x)
    assert gradient.dtype == tf.float64
    rungs = bounds.ladder(gradient, hessian, 0.15)
    check_inequalities(rungs)
    # The Hessian is that of the loss: a second difference of the values says so.
    direction = tf.constant(RNG.normal(size=(20, 4)))
    h = 1e-4
    step = h * tf.reshape(direction, x.shape)
    second = (values(x + step) - 2 * loss + values(x - step)) / h**2
    exact = tf.einsum("bi,bij,bj->b", direction, hessian, direction)
    np.testing.assert_allclose(second, exact, atol=1e-4)
    if activation == "relu":  # positive semidefinite, so the corners hold the maximum
        np.testing.assert_allclose(rungs["corners"], rungs["box"], rtol=1e-12)


def test_box_maximum_by_a_fine_grid():
    gradient, hessian = random_quadratics(6, 2, scale=2.0)
    gradient *= 0.3
    found = bounds.box_maximum(gradient, hessian, 0.5).numpy()
    points = 0.5 * grid(2, 801)
    for i in range(6):
        best = value(gradient[i].numpy(), hessian[i].numpy(), points).max()
        assert best <= found[i] + 1e-12 and found[i] - best < 1e-4


def test_box_maximum_inside_a_face_by_hand():
    # q = d1 - d1^2 + d2^2 / 2: at the stationary d1 = 1/2, and at the corner of d2.
    gradient = tf.constant([[1.0, 0.0]], tf.float64)
    hessian = tf.constant([[[-2.0, 0.0], [0.0, 1.0]]], tf.float64)
    assert bounds.box_maximum(gradient, hessian, 1.0).numpy() == pytest.approx([0.25 + 0.5])
    assert bounds.corner_maximum(gradient, hessian, 1.0).numpy() == pytest.approx([0.0 + 0.5])


def test_ball_maximum_by_a_fine_grid_of_angles():
    gradient, hessian = random_quadratics(8, 2)
    angle = np.linspace(0, 2 * np.pi, 4001)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = 0.7 * np.concatenate([r * circle for r in np.linspace(0, 1, 51)])
    found = bounds.ball_maximum(gradient, hessian, 0.7).numpy()
    for i in range(8):
        best = value(gradient[i].numpy(), hessian[i].numpy(), points).max()
        assert best <= found[i] + 1e-12 and found[i] - best < 2e-3


@pytest.mark.parametrize(
    ("gradient", "diagonal", "radius", "expected"),
    [
        # Hard case: no gradient along the top eigenvector. mu = 4, d2 = 1 / (4 - 2), the rest of
        # the radius goes along d1: 1/2 (1 / 2) + 1/2 * 4 * R^2.
        ([0.0, 1.0], [4.0, 2.0], 1.0, 0.25 + 2.0),
        # The maximum is inside the ball: q = d1 - d1^2.
        ([1.0, 0.0], [-2.0, -1.0], 3.0, 0.25),
        # No gradient: half the largest eigenvalue times R^2, or zero if it is negative.
        ([0.0, 0.0], [4.0, 2.0], 0.5, 0.5),
        ([0.0, 0.0], [-4.0, -2.0], 0.5, 0.0),
        # No curvature.
        ([3.0, 4.0], [0.0, 0.0], 2.0, 10.0),
        # Almost hard: a tiny component along the top eigenvector changes nothing.
        ([1e-13, 1.0], [4.0, 2.0], 1.0, 2.25),
    ],
)
def test_ball_maximum_by_hand(gradient, diagonal, radius, expected):
    gradient, hessian = tf.constant([gradient], tf.float64), tf.linalg.diag([diagonal])
    found = bounds.ball_maximum(gradient, tf.cast(hessian, tf.float64), radius).numpy()
    assert found == pytest.approx([expected], rel=1e-9, abs=1e-12)


def test_expected_norm_closed_forms():
    one = tf.constant(RNG.normal(size=(1, 4, 1)))
    rank_one = one @ tf.transpose(one, [0, 2, 1])  # |v| |z_1| |v|
    size = float(tf.reduce_sum(one**2))
    expected = size * math.sqrt(2 / math.pi)
    np.testing.assert_allclose(bounds.expected_norm(rank_one), [expected], rtol=1e-12)
    for n in (2, 5, 40):  # the mean of the chi distribution
        expected = math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))
        found = bounds.expected_norm(3.0 * tf.eye(n, batch_shape=[1], dtype=tf.float64))
        np.testing.assert_allclose(found, [3 * expected], rtol=1e-12)
    assert float(bounds.expected_norm(tf.zeros([1, 3, 3], tf.float64))[0]) == 0.0


def test_expected_norm_of_any_matrix_by_sampling():
    matrix = RNG.normal(size=(3, 5)) * np.array([[10.0], [1.0], [0.1]])
    sizes = np.linalg.norm(RNG.normal(size=(200_000, 5)) @ matrix.T, axis=1)
    found = float(bounds.expected_norm(tf.constant(matrix[None]))[0])
    assert abs(found - sizes.mean()) < 5 * sizes.std() / math.sqrt(len(sizes))


def test_equation_8_is_an_inequality():
    # Rank one: E|Hz| is sqrt(2 / pi) of the Frobenius norm, and below the spectral norm as well.
    v = tf.constant(RNG.normal(size=(1, 6, 1)))
    matrix = v @ tf.transpose(v, [0, 2, 1])
    mean, spectral = float(bounds.expected_norm(matrix)[0]), float(bounds.spectral_norm(matrix)[0])
    assert mean / float(tf.linalg.norm(matrix)) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-12)
    assert mean < spectral


def test_penalty_can_be_below_the_inner_maximum():
    # A logistic loss has one direction: eq. 11's expectation does not bound the inner maximum.
    w = np.full(2, 50.0)
    gradient, hessian = tf.constant(0.5 * w[None]), tf.constant(0.25 * np.outer(w, w)[None])
    rungs = bounds.ladder(gradient, hessian, 2.0)
    assert float(rungs["penalty"][0]) < float(rungs["box"][0]) <= float(rungs["spectral"][0])
    scaled = float(rungs["scaled_mean_norm"][0])  # the bound is sharp at rank one
    assert scaled == pytest.approx(float(rungs["frobenius"][0]), rel=1e-12)


def test_separate_maxima_and_the_unified_form_are_not_ordered():
    def gap(gradient, diagonal):
        hessian = tf.linalg.diag(tf.constant([diagonal], tf.float64))
        rungs = bounds.ladder(tf.constant([gradient], tf.float64), hessian, 1 / math.sqrt(2))
        return float(rungs["separate"][0] - rungs["eigenvalue"][0])

    # R = 1. Orthogonal directions: 10 + 5 against (R^2 + 1) / 2 * lambda - 1 / 2, lambda = 10.51.
    assert gap([0.0, 10.0], [10.0, 0.0]) == pytest.approx(15 - (0.5 + math.sqrt(100.25) - 0.5))
    # Gradient and curvature along one line: the unified form is looser.
    assert gap([1.0, 0.0], [-1.0, -1.0]) > 0 > gap([0.5, 0.0], [0.0, 0.0])


def test_bordered_hessian():
    gradient, hessian = random_quadratics(2, 3)
    found = bounds.bordered_hessian(gradient, hessian).numpy()
    delta = np.array([0.3, -0.1, 0.7, 1.0])
    for i in range(2):  # eq. 4 in one quadratic form
        q = value(gradient[i].numpy(), hessian[i].numpy(), delta[None, :3])[0]
        assert 0.5 * delta @ found[i] @ delta - 0.5 == pytest.approx(q)


def test_many_coordinates_have_no_enumeration():
    gradient, hessian = random_quadratics(2, bounds.MAX_ENUMERATED + 1)
    rungs = bounds.ladder(gradient, hessian, 0.1)
    assert "corners" not in rungs and "box" not in rungs and "ball" in rungs
    with pytest.raises(InputError, match="at most 12 coordinates"):
        bounds.corner_maximum(gradient, hessian, 0.1)
    with pytest.raises(InputError, match="must be"):
        bounds.ladder(gradient[:, :3], hessian, 0.1)
