"""Projections against float64 oracles, and the distribution of random points of a ball."""

import math

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.ops import norms, projections, random

RNG = np.random.default_rng(1)
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def l1_oracle(v, radius):
    """Euclidean projection onto the l1 ball: the threshold found by bisection."""
    if np.abs(v).sum() <= radius:
        return v
    low, high = 0.0, np.abs(v).max()
    for _ in range(200):
        middle = (low + high) / 2
        inside = np.maximum(np.abs(v) - middle, 0).sum() <= radius
        low, high = (low, middle) if inside else (middle, high)
    return np.sign(v) * np.maximum(np.abs(v) - high, 0)


def oracle(v, radius, norm):
    if norm == "linf":
        return np.clip(v, -radius, radius)
    if norm == "l2":
        return v * min(1.0, radius / max(np.linalg.norm(v), 1e-300))
    return l1_oracle(v, radius)


@pytest.mark.parametrize("norm", norms.NAMES)
@pytest.mark.parametrize("radius", [0.01, 0.7, 3.0, 100.0])
def test_projection_onto_the_ball(norm, radius):
    v = RNG.normal(size=(12, 3, 4)) * np.logspace(-3, 1, 12)[:, None, None]
    ours = projections.project_ball(tf.constant(v), radius, norm).numpy()
    for row, expected in zip(ours, v, strict=True):
        np.testing.assert_allclose(
            row.ravel(), oracle(expected.ravel(), radius, norm), rtol=1e-7, atol=1e-9
        )
    single = projections.project_ball(tf.constant(v, tf.float32), radius, norm)
    np.testing.assert_allclose(single, ours, rtol=1e-4, atol=1e-6)


def test_l1_ties_zeros_and_the_corner():
    v = tf.constant([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [5.0, 0.1, 0.0], [-2.0, 1.0, 0.0]])
    expected = [[1 / 3] * 3, [0.0] * 3, [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    np.testing.assert_allclose(projections.project_ball(v, 1.0, "l1"), expected, rtol=1e-6)


@pytest.mark.parametrize("norm", norms.NAMES)
def test_points_inside_do_not_move_and_projecting_twice_is_projecting_once(norm):
    v = tf.constant(RNG.normal(size=(6, 10)), tf.float32)
    once = projections.project_ball(v, 0.8, norm)
    np.testing.assert_allclose(projections.project_ball(once, 0.8, norm), once, atol=1e-6)
    small = 0.8 * 0.99 * v / norms.per_example(norms.norm(v, norm), v)
    np.testing.assert_array_equal(projections.project_ball(small, 0.8, norm), small)


@pytest.mark.parametrize("norm", norms.NAMES)
def test_radius_zero(norm):
    v = tf.constant(RNG.normal(size=(3, 5)), tf.float32)
    np.testing.assert_array_equal(projections.project_ball(v, 0.0, norm), np.zeros((3, 5)))


@pytest.mark.parametrize("norm", norms.NAMES)
def test_projection_onto_ball_and_box(norm):
    x = RNG.uniform(size=(20, 6)).astype("float32")
    moved = x + RNG.normal(size=(20, 6)).astype("float32")
    ours = projections.project(tf.constant(moved), tf.constant(x), 0.5, norm, (0.0, 1.0)).numpy()
    assert ours.min() >= 0 and ours.max() <= 1
    assert np.linalg.norm(ours - x, ORDERS[norm], axis=1).max() <= 0.5 + 1e-6
    # A point inside both stays, up to the rounding of x + (x' - x).
    np.testing.assert_allclose(
        projections.project(tf.constant(ours), tf.constant(x), 0.5, norm, (0.0, 1.0)), ours,
        atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("norm", norms.NAMES)
def test_random_points_are_uniform_in_the_ball(norm):
    # For a uniform point of a d-dimensional ball, (size / radius)^d is uniform in (0, 1).
    n, dimension, radius = 4000, 6, 0.3
    keys = random.example_keys(0, tf.range(n), purpose="ball")
    points = projections.random_in_ball(keys, (2, 3), radius, norm).numpy().astype(np.float64)
    sizes = np.linalg.norm(points.reshape(n, -1), ORDERS[norm], axis=1)
    assert sizes.max() <= radius * (1 + 1e-6)
    counts, _ = np.histogram((sizes / radius) ** dimension, bins=20, range=(0, 1 + 1e-5))
    expected = n / 20
    assert abs(np.sum((counts - expected) ** 2) / expected - 19) < 5 * math.sqrt(38)
    # No direction is preferred.
    scale = points.std() / math.sqrt(n)
    assert np.abs(points.mean(axis=0)).max() < 5 * scale
    covariance = np.corrcoef(points.reshape(n, -1).T)
    assert np.abs(covariance - np.eye(dimension)).max() < 5 / math.sqrt(n)


def test_unknown_norm():
    with pytest.raises(InputError, match="norm"):
        projections.project_ball(tf.zeros([1, 2]), 0.1, "l0")
