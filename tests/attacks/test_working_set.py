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
