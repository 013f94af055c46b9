"""Projections against float64 oracles, and the distribution of random points of a ball."""

import itertools
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


def brute_force(delta, x, radius):
    """Projection onto l1 ball and [0, 1] box: the best of all sets of free and held coordinates.

    The free ones move by |delta| - t with one t that meets the radius, the held ones to the face.
    """
    size = np.abs(delta)
    room = np.where(delta > 0, 1 - x, x)
    whole = np.minimum(size, room)
    if whole.sum() <= radius:
        return np.sign(delta) * whole
    best, found = np.inf, None
    for states in itertools.product("0fh", repeat=len(x)):
        free, held = np.array(states) == "f", np.array(states) == "h"
        if not free.any():
            continue
        t = (size[free].sum() + room[held].sum() - radius) / free.sum()
        move = np.where(free, size - t, np.where(held, room, 0.0))
        distance = np.sum((move - size) ** 2)
        inside = (move > -1e-12).all() and (move < room + 1e-12).all()
        if t >= 0 and inside and distance < best:
            best, found = distance, move
    return np.sign(delta) * found


@pytest.mark.parametrize("radius", [0.05, 0.6, 1.5, 3.0])
def test_projection_onto_l1_ball_and_box_is_the_nearest_point(radius):
    x = np.clip(RNG.uniform(-0.2, 1.2, size=(30, 5)), 0, 1)  # some pixels lie on a face
    moved = x + RNG.normal(size=(30, 5)) * np.logspace(-2, 1, 30)[:, None]
    moved[3:6, 1] = x[3:6, 1]
    ours = projections.project_l1_box(*map(tf.constant, (moved, x)), radius, (0.0, 1.0)).numpy()
    expected = [brute_force(d, p, radius) for d, p in zip(moved - x, x, strict=True)]
    np.testing.assert_allclose(ours - x, expected, atol=1e-10)


def l1_box_oracle(size, room, radius):
    """The moves' lengths, by bisection of the threshold."""
    if np.minimum(size, room).sum() <= radius:
        return np.minimum(size, room)
    low, high = 0.0, size.max()
    for _ in range(200):
        middle = (low + high) / 2
        inside = np.clip(size - middle, 0, room).sum() <= radius
        low, high = (low, middle) if inside else (middle, high)
    return np.clip(size - high, 0, room)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("radius", [0.01, 2.0, 12.0, 900.0])
def test_projection_onto_l1_ball_and_box_in_high_dimension(dtype, radius):
    x = np.clip(RNG.uniform(-0.3, 1.3, size=(8, 3072)), 0, 1).astype(dtype)
    moved = x + (RNG.normal(size=(8, 3072)) * np.logspace(-3, 1, 8)[:, None]).astype(dtype)
    # One row whose moves come in two sizes: many coordinates reach the box at the same threshold.
    moved[4] = x[4] + np.where(np.arange(3072) % 2, 0.5, 2.0)
    ours = projections.project_l1_box(*map(tf.constant, (moved, x)), radius, (0.0, 1.0)).numpy()
    assert ours.dtype == dtype and ours.min() >= 0 and ours.max() <= 1
    delta = (moved - x).astype("float64")
    room = np.where(delta > 0, 1 - x.astype("float64"), x)
    rows = zip(np.abs(delta), room, strict=True)
    expected = np.sign(delta) * [l1_box_oracle(*row, radius) for row in rows]
    tolerance = 1e-10 if dtype == "float64" else 3e-6
    np.testing.assert_allclose(ours - x, expected, atol=tolerance)
    size = np.abs((ours - x).astype("float64")).sum(axis=1)
    assert (size <= radius * (1 + 1e-5) + 1e-6).all()


def test_l1_projection_onto_ball_and_box_keeps_what_must_stay():
    x = tf.constant(np.clip(RNG.uniform(-0.2, 1.2, size=(6, 40)), 0, 1), tf.float32)
    moved = x + tf.constant(RNG.normal(size=(6, 40)), tf.float32)
    project = projections.project_l1_box
    np.testing.assert_array_equal(project(moved, x, 0.0, (0.0, 1.0)), x)
    np.testing.assert_array_equal(project(x, x, 1.0, (0.0, 1.0)), x)
    once = project(moved, x, 1.3, (0.0, 1.0))
    np.testing.assert_allclose(project(once, x, 1.3, (0.0, 1.0)), once, atol=1e-6)
    assert (np.asarray(once) == np.asarray(x)).mean() > 0.5  # exactly: the support is counted
    # Rows do not depend on each other, and each may have its own radius.
    radii = tf.constant([0.1, 1.3, 0.5, 2.0, 9.0, 0.0])
    together = project(moved, x, radii, (0.0, 1.0))
    for k in range(6):
        alone = project(moved[k : k + 1], x[k : k + 1], float(radii[k]), (0.0, 1.0))
        np.testing.assert_array_equal(together[k : k + 1], alone)


@pytest.mark.parametrize("norm", norms.NAMES)
def test_a_radius_per_example(norm):
    v = tf.constant(RNG.normal(size=(4, 3, 5)))
    radii = tf.constant([0.1, 0.5, 2.0, 90.0], tf.float64)
    together = projections.project_ball(v, radii, norm)
    for k in range(4):
        alone = projections.project_ball(v[k : k + 1], float(radii[k]), norm)
        np.testing.assert_allclose(together[k : k + 1], alone, atol=1e-12)


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
        projections.project(tf.constant(ours), tf.constant(x), 0.5, norm, (0.0, 1.0)),
        ours,
        atol=1e-6,
    )


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
