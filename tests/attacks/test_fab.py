"""FAB, and the box-constrained projection against two independent oracles in float64."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.attacks.fab import FAB, FABT
from soar_tf.ops.hyperplane import project_onto_hyperplane

NORMS = ("linf", "l2", "l1")
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def linf_oracle(x, w, c):
    """The least radius t for which w.d = c is possible with |d| <= t in the box, by bisection."""

    def gain(t):
        low, high = np.maximum(-t, -x), np.minimum(t, 1 - x)
        return np.sum(np.maximum(w * low, w * high))

    w = w * np.sign(c)
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) < abs(c) else (low, middle)
    return high


def l2_oracle(x, w, c):
    """The least norm, by trying every set of coordinates held at a bound."""
    best = np.inf
    for held in itertools.product((None, 0.0, 1.0), repeat=len(x)):
        d = np.array([0.0 if b is None else b - xi for b, xi in zip(held, x, strict=True)])
        free = np.array([b is None for b in held])
        square = np.sum(w[free] ** 2)
        rest = c - w @ d
        if square > 0:
            d[free] = rest * w[free] / square
        elif abs(rest) > 1e-9:
            continue
        if ((x + d) > -1e-9).all() and ((x + d) < 1 + 1e-9).all():
            best = min(best, np.linalg.norm(d))
    return best


def l1_oracle(x, w, c):
    """The least sum, by trying every vertex: all coordinates but one at a bound or in place."""
    best = np.inf
    for free in range(len(x)):
        for held in itertools.product((None, 0.0, 1.0), repeat=len(x) - 1):
            held = (*held[:free], None, *held[free:])
            d = np.array([0.0 if b is None else b - xi for b, xi in zip(held, x, strict=True)])
            rest = c - w @ d
            if w[free] != 0:
                d[free] = rest / w[free]
            elif abs(rest) > 1e-9:
                continue
            if ((x + d) > -1e-9).all() and ((x + d) < 1 + 1e-9).all():
                best = min(best, np.abs(d).sum())
    return best


@pytest.mark.parametrize(
    ("norm", "oracle"), [("linf", linf_oracle), ("l2", l2_oracle), ("l1", l1_oracle)]
)
@pytest.mark.parametrize("reach", [0.05, 0.4, 0.95])
def test_the_projection_is_the_smallest_move_in_the_box(norm, oracle, reach):
    random = np.random.default_rng(0)
    x, w = random.uniform(size=(40, 5)), random.normal(size=(40, 5)) * 3
    x[:10, 0] = 1.0  # coordinates that start at a bound
    x[5:15, 1] = 0.0
    w[8:18, 2] = 0.0
    sign = np.where(np.arange(40) % 2, 1.0, -1.0)[:, None]
    # Shares of the largest change of w.x that the box allows: always feasible.
    c = reach * np.sum(np.where(w * sign > 0, w * (1 - x), -w * x), axis=1)
    d = project_onto_hyperplane(*map(tf.constant, (x, w, c)), norm, (0.0, 1.0)).numpy()
    assert ((x + d) >= -1e-12).all() and ((x + d) <= 1 + 1e-12).all()
    np.testing.assert_allclose(np.sum(w * d, axis=1), c, atol=1e-9)
    size = np.linalg.norm(d, ORDERS[norm], axis=1)
    expected = [oracle(*row) for row in zip(x, w, c, strict=True)]
    np.testing.assert_allclose(size, expected, atol=1e-8)


@pytest.mark.parametrize("norm", NORMS)
def test_an_unreachable_hyperplane_gives_the_boxs_corner(norm):
    x, w = tf.constant([[0.2, 0.7, 0.5]]), tf.constant([[1.0, -2.0, 0.0]])
    d = project_onto_hyperplane(x, w, tf.constant([50.0]), norm, (0.0, 1.0))
    np.testing.assert_allclose(d, [[0.8, -0.7, 0.0]], atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_no_direction_and_no_gap_give_no_move(norm):
    x = tf.fill([2, 3], 0.5)
    w = tf.constant([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    d = project_onto_hyperplane(x, w, tf.constant([1.0, 0.0]), norm, (0.0, 1.0))
    np.testing.assert_array_equal(d, np.zeros((2, 3)))


@pytest.mark.parametrize("norm", NORMS)
def test_rows_do_not_depend_on_each_other(norm):
    random = np.random.default_rng(1)
    x = tf.constant(random.uniform(size=(7, 30)), tf.float32)
    w = tf.constant(random.normal(size=(7, 30)) ** 3, tf.float32)
    c = tf.constant(random.normal(size=7) * 3, tf.float32)
    together = project_onto_hyperplane(x, w, c, norm, (0.0, 1.0))
    alone = project_onto_hyperplane(x[3:4], w[3:4], c[3:4], norm, (0.0, 1.0))
    np.testing.assert_allclose(together[3:4], alone, rtol=1e-6, atol=1e-7)


def linear(x):
    """Margin 2 x_0 - x_1 - .5 between the classes 0 and 1."""
    return tf.stack([2.0 * x[:, 0], x[:, 1] + 0.5], axis=1)


# The margin .3 over the dual norm of the slope (2, -1).
DISTANCES = {"linf": 0.3 / 3, "l2": 0.3 / 5**0.5, "l1": 0.3 / 2}
DIRECTIONS = {"linf": (-1.0, 1.0), "l2": (-2.0 / 5**0.5, 1.0 / 5**0.5), "l1": (-1.0, 0.0)}


@pytest.mark.parametrize(
    ("cls", "norm"), [(FAB, "linf"), (FABT, "linf"), (FABT, "l2"), (FAB, "l1"), (FABT, "l1")]
)
def test_a_linear_boundary_is_found_at_its_distance(cls, norm):
    distance = DISTANCES[norm]
    x, y = np.array([[0.6, 0.4]]), np.array([0])  # margin 1.2 - .9 = .3
    found = cls(epsilon=1.06 * distance, norm=norm, steps=1)(linear, x, y).numpy()
    delta = found - x
    # Both projections are the same move, d; the step overshoots it by eta = 1.05.
    expected = 1.05 * distance * np.array(DIRECTIONS[norm])
    np.testing.assert_allclose(delta[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_a_boundary_outside_the_ball_leaves_the_image_as_it_is(norm):
    x = np.array([[0.6, 0.4]], "float32")
    found = FABT(epsilon=0.99 * DISTANCES[norm], norm=norm, steps=10)(linear, x, np.array([0]))
    np.testing.assert_array_equal(found, x)


def test_backward_steps_bring_an_overshooting_start_into_the_ball():
    # eta = 2 lands at twice the distance; .9 of it, ... then comes within 1.5 of the distance.
    x, y = np.array([[0.6, 0.4]]), np.array([0])
    assert np.argmax(linear(FABT(epsilon=0.15, steps=1, eta=2.0)(linear, x, y))) == 0
    assert np.argmax(linear(FABT(epsilon=0.15, steps=5, eta=2.0)(linear, x, y))) == 1


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_begin_at_half_the_radius(norm):
    x = np.random.default_rng(0).uniform(0.3, 0.7, size=(5, 4, 3, 1)).astype("float32")
    keys = tf.reshape(tf.range(10, dtype=tf.int32), [5, 2])
    attack = FAB(epsilon=0.2, norm=norm)
    start = attack._random_start(tf.constant(x), tf.cast(keys, tf.uint32)).numpy()
    size = np.linalg.norm((start - x).reshape(5, -1), ORDERS[norm], axis=1)
    np.testing.assert_allclose(size, 0.1, rtol=1e-5)
