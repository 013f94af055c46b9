"""Square attack: schedule, proposals, acceptance."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf.attacks import square, square_windows
from soar_tf.attacks.square import Square
from soar_tf.ops import losses, random


@pytest.fixture
def network():
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((7, 5, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "tanh"),
            keras.layers.Dense(4),
        ]
    )


def images(count, shape=(7, 5, 2)):
    return np.random.default_rng(3).uniform(size=(count, *shape)).astype("float32")


def test_p_halves_after_the_papers_queries():
    halvings = square_windows.halvings(10001)
    starts = np.flatnonzero(np.diff(halvings)) + 1
    assert starts.tolist() == [11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert halvings[0] == 0 and halvings[-1] == 9 and np.diff(halvings).max() == 1


def test_sides_of_32x32_images_are_the_rounded_roots():
    # sqrt(.8 * 1024 / 2^k) = 28.6, 20.2, 14.3, 10.1, 7.2, 5.1, 3.6, 2.5, 1.8, 1.3
    assert square_windows.window_sides(32, 32, 0.8) == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    odd = square_windows.window_sides(32, 32, 0.8, smallest=3, odd=True)
    assert odd == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]


def test_bump_by_hand():
    # Upper half 1x3: 1 + 1/4 in the middle, 1/4 beside it; each half has norm 1/sqrt(2).
    upper = np.array([0.25, 1.25, 0.25])
    bump = square_windows.bump(3)
    np.testing.assert_allclose(bump[0], upper / np.linalg.norm(upper) / 2**0.5, rtol=1e-6)
    assert (bump[1:] < 0).all()
    np.testing.assert_allclose(np.linalg.norm(square_windows.bump(6)), 1.0, rtol=1e-6)


def test_linf_start_is_vertical_stripes():
    attack = Square(epsilon=0.1, bounds=(-1.0, 2.0))
    x = images(3)
    proposals = square_windows.LinfProposals(attack, x.shape[1:])
    delta = proposals.start(x, random.example_keys(0, tf.range(3))).numpy() - x
    np.testing.assert_allclose(np.abs(delta), 0.1, atol=1e-6)
    np.testing.assert_allclose(delta, np.broadcast_to(delta[:, :1], delta.shape), atol=1e-6)


@pytest.mark.parametrize("corner", [0.0001, 0.9999])
def test_a_linf_proposal_changes_one_window(corner):
    attack = Square(epsilon=0.1, bounds=(-1.0, 2.0))
    x = np.full((1, 8, 9, 2), 0.5, "float32")
    proposals = square_windows.LinfProposals(attack, (8, 9, 2))
    noise = tf.constant([[corner, corner, 0.2, 0.7]])
    for stage in range(10):
        changed = proposals.propose(x, x, noise, stage).numpy() - x
        side = proposals.sides[stage]
        rows = slice(0, side) if corner < 0.5 else slice(max(8 - side, 0), 8)
        columns = slice(0, side) if corner < 0.5 else slice(max(9 - side, 0), 9)
        expected = np.zeros((8, 9, 2))
        expected[rows, columns] = [-0.1, 0.1]
        np.testing.assert_allclose(changed[0], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8, 3), (12, 7, 1), (3, 3, 1), (2, 5, 1)])
def test_l2_proposals_fill_the_ball(shape):
    attack = Square(epsilon=0.4, norm="l2", bounds=(-2.0, 3.0))
    x = images(5, shape)
    proposals = square_windows.L2Proposals(attack, shape)
    keys = random.example_keys(0, tf.range(5))
    point = proposals.start(x, keys)
    for stage in range(10):
        noise = random.uniform(random.derive(keys, stage), (proposals.numbers,))
        point = proposals.propose(point, x, noise, stage)
        size = np.linalg.norm((point.numpy() - x).reshape(5, -1), axis=1)
        np.testing.assert_allclose(size, 0.4, rtol=1e-4)


def test_an_l2_proposal_moves_the_second_windows_mass_into_the_first():
    # x_best - x has norm epsilon, so nothing is free: outside the windows nothing may change.
    attack = Square(epsilon=1.0, norm="l2", p_init=0.1, bounds=(-4.0, 4.0))
    x = np.zeros((1, 9, 9, 1), "float32")
    proposals = square_windows.L2Proposals(attack, (9, 9, 1))
    assert proposals.sides[0] == 3
    best = np.full((1, 9, 9, 1), 1 / 9, "float32")
    noise = tf.constant([[0.01, 0.01, 0.99, 0.99, 0.3, 0.3]])
    moved = proposals.propose(best, x, noise, 0).numpy()[0, :, :, 0]
    assert (moved[6:, 6:] == 0).all()
    untouched = np.ones((9, 9), bool)
    untouched[:3, :3] = untouched[6:, 6:] = False
    np.testing.assert_allclose(moved[untouched], 1 / 9, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(moved[:3, :3]), (18 / 81) ** 0.5, rtol=1e-5)


def test_l1_bumps_by_hand():
    # Upper half 1x3: 1 + 1/16 in the middle, 1/16 beside it; each half has norm 1/2.
    upper = np.array([1 / 16, 17 / 16, 1 / 16])
    bump = square_windows.bump(3, "l1")
    np.testing.assert_allclose(bump[0], upper / upper.sum() / 2, rtol=1e-6)
    assert (bump[1:] < 0).all()
    np.testing.assert_allclose(np.abs(square_windows.bump(6, "l1")).sum(), 1.0, rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8, 3), (12, 7, 1), (3, 3, 1), (2, 5, 1)])
def test_l1_proposals_fill_the_ball_within_the_box(shape):
    attack = Square(epsilon=0.9, norm="l1")
    x = images(5, shape)
    proposals = square_windows.L1Proposals(attack, shape)
    keys = random.example_keys(0, tf.range(5))
    point = proposals.start(x, keys)
    for stage in range(10):
        noise = random.uniform(random.derive(keys, stage), (proposals.numbers,))
        point = proposals.propose(point, x, noise, stage)
        found = point.numpy()
        assert found.min() >= 0.0 and found.max() <= 1.0
        size = np.abs(found - x).reshape(5, -1).sum(axis=1)
        assert (size <= 0.9 * (1 + 1e-5)).all() and size.max() > 0.89


def test_an_l1_proposal_moves_the_second_windows_mass_into_the_first():
    # One channel and norm epsilon: the first window gets the mass of both, nothing else changes,
    # and nothing has to be projected.
    attack = Square(epsilon=1.0, norm="l1", p_init=0.1, bounds=(-4.0, 4.0))
    x = np.zeros((1, 9, 9, 1), "float32")
    proposals = square_windows.L1Proposals(attack, (9, 9, 1))
    best = np.full((1, 9, 9, 1), 1 / 81, "float32")
    noise = tf.constant([[0.01, 0.01, 0.99, 0.99, 0.3, 0.3]])
    moved = proposals.propose(best, x, noise, 0).numpy()[0, :, :, 0]
    assert (moved[6:, 6:] == 0).all()
    untouched = np.ones((9, 9), bool)
    untouched[:3, :3] = untouched[6:, 6:] = False
    np.testing.assert_allclose(moved[untouched], 1 / 81, rtol=1e-4)
    np.testing.assert_allclose(np.abs(moved[:3, :3]).sum(), 18 / 81, rtol=1e-4)
    # What the window held, scaled to norm 1, plus the bump with its sign.
    expected = 1 / 9 - square_windows.bump(3, "l1")
    shape = moved[:3, :3] / np.abs(moved[:3, :3]).sum()
    np.testing.assert_allclose(shape, expected / np.abs(expected).sum(), atol=1e-5)


def test_l1_channels_share_one_image():
    # Each of the 3 channels of the window gets what is free plus 3 times what the windows hold.
    attack = Square(epsilon=1.0, norm="l1", bounds=(-4.0, 4.0))
    proposals = square_windows.L1Proposals(attack, (5, 5, 3))
    delta = np.zeros((1, 5, 5, 3), "float32")
    delta[0, 0, 0], delta[0, 4, 4] = [0.1, 0.2, 0.0], [0.3, 0.0, 0.1]
    windows = np.zeros((1, 5, 5, 1), bool)
    windows[0, :3, :3] = True
    size = proposals._size(tf.constant(delta), tf.constant(windows)).numpy().ravel()
    np.testing.assert_allclose(size, [0.3 + 0.3, 0.3 + 0.6, 0.3], rtol=1e-5)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.2), ("l2", 0.2), ("l1", 0.6)])
def test_the_lowest_margin_is_kept_and_each_query_is_one_pass(network, monkeypatch, norm, epsilon):
    monkeypatch.setattr(square, "_AHEAD", 1)
    log = []

    def unbreakable(x):
        logits = network(x) + 9.0 * tf.one_hot(tf.zeros(tf.shape(x)[0], tf.int32), 4)
        done = tf.numpy_function(lambda value: log.append(value.copy()), [logits], [])
        with tf.control_dependencies([done]):
            return tf.identity(logits)

    x, y = images(3), np.zeros(3, "int64")
    found = Square(epsilon=epsilon, norm=norm, queries=80)(unbreakable, x, y, seed=5)
    assert len(log) == 1 + 1 + 80  # the clean pass, the start, the queries
    margins = np.stack([-losses.margin(y, tf.constant(logits)) for logits in log[1:]])
    reached = -losses.margin(y, unbreakable(found)).numpy()
    np.testing.assert_allclose(reached, margins.min(axis=0), rtol=1e-5)
    assert (reached < margins[0]).all()


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.2), ("l2", 0.2), ("l1", 0.6)])
@pytest.mark.parametrize("count", [1, 3])
def test_queries_tried_ahead_change_nothing(network, monkeypatch, norm, epsilon, count):
    # More than a chunk of queries, of which some are accepted and most are not.
    passes = []

    def unbreakable(x):
        logits = network(x) + 9.0 * tf.one_hot(tf.zeros(tf.shape(x)[0], tf.int32), 4)
        done = tf.numpy_function(passes.append, [tf.shape(x)[0]], [])
        with tf.control_dependencies([done]):
            return tf.identity(logits)

    x, y, found, calls = images(count), np.zeros(count, "int64"), [], []
    for ahead in (1, 16):
        monkeypatch.setattr(square, "_AHEAD", ahead)
        passes.clear()
        found.append(Square(epsilon=epsilon, norm=norm, queries=90)(unbreakable, x, y).numpy())
        calls.append(len(passes))
    # Sums round by the number of rows; a query more or less would move a window by the radius.
    np.testing.assert_allclose(*found, atol=1e-5)
    assert calls[0] == 1 + 1 + 90 and calls[1] < 0.8 * calls[0]


def test_vectors_are_taken_as_images_with_one_row():
    found = Square(epsilon=0.3, queries=40)(
        lambda x: tf.stack([x[:, 0], x[:, 1]], axis=1), [[0.6, 0.4, 0.1]], [0]
    )
    assert found[0, 1] > found[0, 0]
