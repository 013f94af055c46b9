"""Attacks on networks whose gradients are not finite in places."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.attacks import working_set


def _split(x, first):
    """Two classes, split at a mean pixel of 0.5; `first` adds to the margin nothing but slopes."""
    pixels = tf.reshape(x, [tf.shape(x)[0], -1])
    margin = tf.reduce_mean(pixels, axis=1) - 0.5 + first(pixels[:, 0])
    return tf.stack([-margin, margin], axis=1) * 20.0


def _nan(pixel):
    return tf.sqrt(tf.nn.relu(pixel - pixel))  # 0, with the slope 0 * infinity


X = np.full((2, 2, 2, 1), 0.4, "float32")
X[1] = 0.2
Y = np.zeros(2, int)


def test_nan_coordinates_count_as_zero_and_infinite_ones_as_steep():
    slopes = tf.constant([[np.nan, np.inf, -np.inf, -2.0]])

    @tf.custom_gradient
    def with_slopes(x):
        return tf.stack([x[:, 0], -x[:, 0]], axis=1), lambda upstream: slopes

    logits, values, gradient = working_set.evaluate(
        with_slopes, lambda logits: logits[:, 0], tf.constant([[0.5, 0.0, 0.0, 0.0]])
    )
    np.testing.assert_array_equal(logits, [[0.5, -0.5]])
    np.testing.assert_array_equal(values, [0.5])
    np.testing.assert_array_equal(gradient, np.float32([[0.0, 1e15, -1e15, -2.0]]))
    assert np.isfinite(np.square(gradient).sum())


@pytest.mark.parametrize(
    "attack",
    [
        "pgd5:epsilon=0.2",
        "apgd-ce:epsilon=0.2,steps=5",
        "l2pgd5:epsilon=0.4",
        "apgd-ce:epsilon=0.4,norm=l2,steps=5",
    ],
)
def test_a_network_cannot_hide_behind_one_nan(attack):
    # Without the NaN pixel three of four move by 0.2: the mean rises by 0.15, and 0.4 breaks. In
    # l2 a step of length 0.4 over three pixels raises the mean by 0.4 * sqrt(3) / 4 = 0.17.
    result = soar_tf.evaluate(lambda x: _split(x, _nan), X, Y, [attack])
    assert result.clean_accuracy == 1.0
    np.testing.assert_array_equal(result.attacks[0].robust, [False, True])


def test_broken_rows_settle_the_later_runs_of_their_example():
    # Runs 0 to 2 of three examples; run 1 of example 0 and run 2 of example 2 have left already.
    index = tf.constant([0, 2, 3, 4, 5, 6, 7])
    broken = tf.constant([False, False, False, True, False, False, True])
    settled = working_set.settled(broken, index, tf.constant(3))
    np.testing.assert_array_equal(settled, [False, False, False, True, True, False, True])


@pytest.mark.parametrize("together", [1, 4, 64])
def test_runs_together_give_what_runs_one_after_the_other_give(monkeypatch, together):
    # Run r of example e breaks it where BREAKS says so, and returns 10 e + r.
    breaks = np.zeros((4, 6), bool)
    breaks[0, 2] = breaks[0, 4] = breaks[1, 0] = breaks[2, 5] = True
    sizes = []

    def search(source, number, together, result):
        sizes.append(int(together))
        found = tf.cast(10 * source + number, tf.float32)[:, None] + tf.zeros_like(result)
        unbroken = ~tf.gather_nd(breaks, tf.stack([source, number], axis=1))
        return tf.cast(tf.where(unbroken)[:, 0], tf.int32), found

    monkeypatch.setattr(working_set, "_PARALLEL_ROWS", together)
    found = working_set.over_runs(search, tf.zeros((4, 3)), 6)
    np.testing.assert_array_equal(found, np.repeat([[2.0], [10.0], [25.0], [35.0]], 3, axis=1))
    assert sizes == {1: [1] * 6, 4: [1, 1, 1, 2, 1], 64: [6]}[together]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
def test_targets_together_find_what_targets_one_by_one_find(monkeypatch, name, norm):
    rng = np.random.default_rng(2)
    weights = tf.constant(rng.normal(size=(12, 8)), tf.float32)
    x = rng.uniform(0.2, 0.8, (7, 12)).astype("float32")

    def logits(x):
        return tf.reduce_sum(tf.nn.tanh(x[:, :, None] * weights), axis=1)

    y = np.argmax(logits(tf.constant(x)), axis=1)
    radius = {"linf": 0.05, "l2": 0.15, "l1": 0.3}[norm]
    found = []
    for together in (1, 64):
        monkeypatch.setattr(working_set, "_PARALLEL_ROWS", together)
        arguments = {"targets": 4, "steps": 12, "restarts": 2, "epsilon": radius, "norm": norm}
        found.append(soar_tf.attacks.get(name, **arguments)(logits, x, y, seed=1).numpy())
    # Sums round by the number of rows; a wrong run or noise would differ by the radius.
    np.testing.assert_allclose(*found, atol=1e-5)
    broken = np.argmax(logits(tf.constant(found[0])), axis=1) != y
    assert 0 < broken.mean() < 1
