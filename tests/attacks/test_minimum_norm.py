"""DDN and FMN against float64 iterations, and against distances that are known."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.attacks import DDN, FMN
from soar_tf.errors import InputError

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL_ORDERS = {"linf": 1, "l2": 2, "l1": np.inf}
RNG = np.random.default_rng(2)
FIRST, SECOND = RNG.normal(size=(6, 5)), RNG.normal(size=(5, 3))
X = RNG.uniform(0.1, 0.9, size=(4, 6))
Y = np.argmax(np.tanh(3 * (X - 0.5) @ FIRST) @ SECOND, axis=1)


@pytest.fixture
def eagerly():
    """A trace costs more than the few steps taken here; the contract tests run graphs."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class Recorded:
    """A small smooth network that keeps every batch of points it is asked about."""

    def __init__(self):
        self.points = []

    def __call__(self, x):
        if tf.executing_eagerly():
            self.points.append(x.numpy())
        hidden = tf.tanh(3.0 * (x - 0.5) @ tf.constant(FIRST, tf.float32))
        return hidden @ tf.constant(SECOND, tf.float32)


def logits_and_slopes(x):
    """The same network in float64: logits `[C]` and their slopes `[C, d]`."""
    hidden = np.tanh(3 * (x - 0.5) @ FIRST)
    return hidden @ SECOND, 3 * (SECOND.T * (1 - hidden**2)) @ FIRST.T


def cosine(k, steps, first, last):
    return last + (first - last) * (1 + np.cos(np.pi * k / steps)) / 2


def ddn_points(x, y, steps):
    """The points that DDN asks about, straight from the paper's algorithm 1."""
    farthest = np.linalg.norm(np.maximum(x, 1 - x))
    delta, norm, points = np.zeros_like(x), 1.0, [x]
    for k in range(steps):
        logits, slopes = logits_and_slopes(x + delta)
        p = np.exp(logits - logits.max())
        gradient = (p / p.sum()) @ slopes - slopes[y]
        norm = min(norm * (0.95 if logits.argmax() != y else 1.05), farthest)
        moved = delta + cosine(k, steps, 1.0, 0.01) * gradient / np.linalg.norm(gradient)
        delta = np.clip(x + norm * moved / np.linalg.norm(moved), 0, 1) - x
        points.append(x + delta)
    return points


def project_onto_ball(v, radius, norm):
    if norm == "linf":
        return np.clip(v, -radius, radius)
    size = np.linalg.norm(v, ORDERS[norm])
    if size <= radius:
        return v
    if norm == "l2":
        return v * radius / size
    low, high = 0.0, np.abs(v).max()
    for _ in range(100):
        middle = (low + high) / 2
        inside = np.maximum(np.abs(v) - middle, 0).sum() <= radius
        low, high = (low, middle) if inside else (middle, high)
    return np.sign(v) * np.maximum(np.abs(v) - high, 0)


def fmn_points(x, y, steps, norm):
    """The points that FMN asks about, from the paper's algorithm 1 with the overshoot."""
    farthest = np.linalg.norm(np.maximum(x, 1 - x), ORDERS[norm])
    delta, radius, best, points = np.zeros_like(x), np.inf, np.inf, [x]
    for k in range(steps):
        logits, slopes = logits_and_slopes(x + delta)
        other = np.argmax(np.where(np.arange(3) == y, -np.inf, logits))
        gradient, size = slopes[other] - slopes[y], np.linalg.norm(delta, ORDERS[norm])
        gamma = cosine(k, steps, 0.05, 0.001)
        if logits.argmax() != y:
            best = min(best, size)
            radius = min(radius * (1 - gamma), best)
        elif np.isfinite(best):
            radius *= 1 + gamma
        else:
            slope = np.linalg.norm(gradient, DUAL_ORDERS[norm])
            radius = (1 + gamma) * (size + abs(logits[y] - logits[other]) / slope)
        radius = min(radius, farthest)
        moved = delta + cosine(k, steps, 1.0, 0.01) * gradient / np.linalg.norm(gradient)
        delta = np.clip(x + project_onto_ball(moved, radius, norm), 0, 1) - x
        points.append(x + delta)
    return points


CASES = [("ddn", "l2"), ("fmn", "linf"), ("fmn", "l2"), ("fmn", "l1")]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_every_point_is_that_of_the_papers_algorithm(name, norm, eagerly):
    network = Recorded()
    attack = soar_tf.attacks.get(
        name, norm=norm, epsilon=1.0 if norm == "linf" else 9.0, steps=12, early_stop=False
    )
    found = attack(network, X, Y).numpy()
    # The clean pass, twelve steps and a last look.
    assert len(network.points) == 1 + 12 + 1
    for row, (x, y) in enumerate(zip(X, Y, strict=True)):
        points = ddn_points(x, y, 12) if name == "ddn" else fmn_points(x, y, 12, norm)
        seen = [batch[row] for batch in network.points[1:]]
        np.testing.assert_allclose(seen, points, atol=1e-4)
        broken = [p for p in points if logits_and_slopes(p)[0].argmax() != y]
        sizes = [np.linalg.norm(p - x, ORDERS[norm]) for p in broken]
        assert len(sizes) > 2
        np.testing.assert_allclose(found[row], broken[np.argmin(sizes)], atol=1e-4)


SLOPE = np.random.default_rng(5).normal(size=6).astype("float32")


def linear(x):
    """Two classes, split by a plane; `SLOPE . (x - .5)` is their margin, negative in class 0."""
    margin = tf.linalg.matvec(x - 0.5, SLOPE)
    return tf.stack([tf.zeros_like(margin), margin], axis=1)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_distance_to_a_linear_boundary_is_found(name, norm):
    x = np.random.default_rng(6).uniform(0.4, 0.6, size=(10, 6)).astype("float32")
    y = np.argmax(linear(x), axis=1)
    attack = soar_tf.attacks.get(
        name,
        norm=norm,
        epsilon=1.0 if norm == "linf" else 20.0,
        bounds=(-9.0, 9.0),
        early_stop=False,
        steps=300,
    )
    found = attack(linear, x, y).numpy()
    assert (np.argmax(linear(found), axis=1) != y).all()
    size = np.linalg.norm(found - x, ORDERS[norm], axis=1)
    expected = np.abs((x - 0.5) @ SLOPE) / np.linalg.norm(SLOPE, DUAL_ORDERS[norm])
    assert (size > expected * 0.999).all()
    # DDN's length moves by 5 % in both directions to the end; FMN's radius by .1 %.
    np.testing.assert_allclose(size, expected, rtol=0.1 if name == "ddn" else 0.005)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_point_counts_if_it_lies_within_epsilon(name, norm):
    options = {"norm": norm, "steps": 40}
    largest = 1.0 if norm == "linf" else 9.0
    whole = soar_tf.attacks.get(name, epsilon=largest, early_stop=False, **options)
    nearest = whole(Recorded(), X, Y).numpy()
    size = np.linalg.norm(nearest - X, ORDERS[norm], axis=1)
    epsilon = float(0.5 * (size.min() + size.max()))
    found = soar_tf.attacks.get(name, epsilon=epsilon, **options)(Recorded(), X, Y).numpy()
    near = size <= epsilon
    assert 0 < near.sum() < 4
    np.testing.assert_array_equal(np.argmax(Recorded()(tf.constant(found)), axis=1) != Y, near)
    np.testing.assert_array_equal(found[~near], X.astype("float32")[~near])
    reached = np.linalg.norm(found - X, ORDERS[norm], axis=1)
    assert (reached <= epsilon + 1e-6).all() and (reached >= np.where(near, size, 0) - 1e-6).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_box_holds(norm):
    # The first pixel is at its face already, so the second has to go all the way down to .3.
    x = np.array([[0.0, 0.5]], np.float32)

    def net(x):
        other = 0.3 - x[:, 0] - x[:, 1]
        return tf.stack([tf.zeros_like(other), 50.0 * other], axis=1)

    attack = FMN(epsilon=1.0, norm=norm, steps=200, early_stop=False)
    found = attack(net, x, np.zeros(1, int)).numpy()
    assert found.min() >= 0.0 and np.argmax(net(found), axis=1) == 1
    np.testing.assert_allclose(found[0], [0.0, 0.3], atol=4e-3)


@pytest.mark.parametrize("name", ["ddn", "fmn"])
def test_without_a_slope_it_goes_somewhere_at_random(name, eagerly):
    seen = []

    def flat(x):
        seen.append(x.numpy())
        return tf.constant([[1.0, 0.0]]) + 0.0 * x[:, :1]

    attack = soar_tf.attacks.get(name, norm="l2", epsilon=0.3, steps=3)
    found = attack(flat, X, np.zeros(4, int), seed=1).numpy()
    np.testing.assert_array_equal(found, X.astype("float32"))
    assert (np.abs(seen[-1] - X).max(axis=1) > 0.05).all()
    assert not np.allclose(seen[-1][0] - X[0], seen[-1][1] - X[1])


def test_more_steps_come_nearer():
    sizes = []
    for steps in (5, 100):
        attack = FMN(epsilon=9.0, norm="l2", steps=steps, early_stop=False)
        sizes.append(np.linalg.norm(attack(Recorded(), X, Y) - X, axis=1))
    assert (sizes[1] <= sizes[0] + 1e-6).all() and (sizes[1] < sizes[0] - 1e-4).any()


def test_their_norms_and_arguments():
    with pytest.raises(InputError, match="Unknown `norm` 'linf'"):
        DDN(norm="linf")
    with pytest.raises(InputError, match="`gamma` must be"):
        FMN(gamma=0.0)
    assert [FMN(norm=norm).epsilon for norm in FMN.norms] == pytest.approx([8 / 255, 8 / 255, 12])
    # A radius meant for linf attacks is not taken for this one.
    assert soar_tf.attacks.get("ddn", epsilon=8 / 255).epsilon == pytest.approx(60 / 255)
