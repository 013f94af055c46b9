"""Honest backward passes: closed forms of what each obstacle lets through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf.evaluation.straight_through import Averaged, Rescaled, StraightThrough

WEIGHTS = tf.constant([[1.0, 2.0], [3.0, 4.0]])
X = tf.constant([[0.1, 0.2], [0.3, 0.4]])


@tf.custom_gradient
def flipped(x):
    return tf.identity(x), lambda slope: -slope


@tf.custom_gradient
def cubed_without_slope(x):
    return x**3, tf.zeros_like


def through_numpy(x):
    return tf.ensure_shape(
        tf.numpy_function(lambda a: np.round(255 * a) / np.float32(255), [x], tf.float32), [None, 2]
    )


class Bytes(keras.layers.Layer):
    def call(self, x):
        return keras.ops.cast(keras.ops.cast(255 * x, "int32"), "float32") / 255


def slope(logits_fn, wide=False, compiled=True):
    """The gradient by X of the sum of f(X) times (1, 2)."""
    stand_in = StraightThrough(logits_fn, wide)

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(X)
            total = tf.reduce_sum(stand_in(X) * [[1.0, 2.0]])
        return tape.gradient(total, X)

    return (tf.function(gradient, autograph=False) if compiled else gradient)().numpy()


TRUE = np.tile([[5.0, 11.0]], (2, 1))

PASSED = {
    "nothing": lambda x: x @ WEIGHTS,
    "round": lambda x: tf.round(255 * x) / 255 @ WEIGHTS,
    "floor": lambda x: tf.floor(x) @ WEIGHTS,
    "cast": lambda x: tf.cast(tf.cast(255 * x, tf.uint8), tf.float32) / 255 @ WEIGHTS,
    "stop": lambda x: tf.stop_gradient(x @ WEIGHTS),
    "flipped": lambda x: flipped(x) @ WEIGHTS,
    "numpy": lambda x: through_numpy(x) @ WEIGHTS,
    "layer": lambda x: Bytes()(x) @ WEIGHTS,
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", PASSED)
def test_obstacles_are_passed_as_identities(name, compiled):
    np.testing.assert_allclose(slope(PASSED[name], compiled=compiled), TRUE, rtol=1e-5)


def test_a_written_gradient_gives_way_to_that_of_the_forward_pass():
    np.testing.assert_allclose(
        slope(lambda x: cubed_without_slope(x) @ WEIGHTS), TRUE * 3 * X.numpy() ** 2, rtol=1e-5
    )


def test_clips_are_passed_by_the_wide_one_only():
    def clipped(x):
        return tf.clip_by_value(100 * x @ WEIGHTS, -1.0, 1.0)

    np.testing.assert_array_equal(slope(clipped), np.zeros((2, 2)))
    np.testing.assert_allclose(slope(clipped, wide=True), 100 * TRUE, rtol=1e-5)


def test_selections_are_passed_by_the_wide_one_only():
    def selected(x):
        return tf.where(x > 0.15, x, tf.zeros_like(x)) @ WEIGHTS

    np.testing.assert_allclose(slope(selected)[0], [0.0, 11.0])
    np.testing.assert_allclose(slope(selected, wide=True), TRUE, rtol=1e-5)


def test_comparisons_and_one_hot_codes_have_the_sign_of_a_smooth_one():
    above = slope(lambda x: tf.cast(x > 0.25, tf.float32) @ tf.abs(WEIGHTS))
    assert (above[1] > 0).all()
    below = slope(lambda x: tf.cast(x < 0.25, tf.float32) @ tf.abs(WEIGHTS))
    assert (below[1] < 0).all()
    code = slope(lambda x: tf.one_hot(tf.argmax(x @ WEIGHTS, axis=1), 2))
    assert (code > 0).all()  # the second logit grows faster, and counts twice


def test_outputs_are_the_networks_own():
    for name, logits_fn in PASSED.items():
        np.testing.assert_array_equal(StraightThrough(logits_fn)(X), logits_fn(X), err_msg=name)


@pytest.mark.parametrize("factor", [1e-20, 1.0, 1e6])
def test_rescaled_logits_lead_by_ten_at_most(factor):
    logits = Rescaled(lambda x: factor * x)(tf.constant([[1.0, 3.0, 2.0], [0.0, 0.0, -1.0]]))
    np.testing.assert_allclose(logits, [[-5.0, 5.0, 0.0], [5.0, 5.0, -5.0]], rtol=1e-5)


def test_averages_are_of_probabilities():
    draws = iter([[[0.0, 0.0]], [[np.log(3.0), 0.0]]])
    average = Averaged(lambda x: tf.constant(next(draws), tf.float32), 2)(X)
    np.testing.assert_allclose(tf.exp(average), [[0.625, 0.375]], rtol=1e-6)


@pytest.mark.parametrize(
    "codes",
    [
        lambda x: tf.reduce_mean(tf.cast(x[..., None] > [0.0, 0.15, 0.5], tf.float32), axis=-1),
        lambda x: x * tf.cast(tf.reduce_sum(x, axis=1) > 0.4, tf.float32)[:, None],
    ],
)
def test_the_slope_of_a_comparison_does_not_depend_on_the_batch(codes):
    stand_in = StraightThrough(lambda x: codes(x) @ WEIGHTS)

    def slopes(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(stand_in(x))
        return tape.gradient(total, x).numpy()

    together, alone = slopes(X), np.concatenate([slopes(X[:1]), slopes(X[1:])])
    assert np.abs(together).min() > 0
    np.testing.assert_allclose(together, alone, rtol=1e-6)
