"""Losses against NumPy formulas and values worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.attacks.attack import misclassified
from soar_tf.ops import losses

RNG = np.random.default_rng(2)
LOGITS = RNG.normal(scale=3.0, size=(40, 6))
LABELS = RNG.integers(0, 6, size=40)
HAND = tf.constant([[1.0, 4.0, 2.0, -1.0, 0.5], [1.0, 4.0, 2.0, -1.0, 0.5]])


def others(logits, labels):
    masked = logits.copy()
    masked[np.arange(len(labels)), labels] = -np.inf
    return masked.max(axis=1)


def test_cross_entropy():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        losses.cross_entropy(LABELS, tf.constant(LOGITS)), -np.log(p[np.arange(40), LABELS])
    )


def test_cross_entropy_does_not_overflow():
    loss = losses.cross_entropy([0, 1], tf.constant([[1e4, 0.0], [1e4, 0.0]]))
    np.testing.assert_allclose(loss, [0.0, 1e4])


def test_margin():
    expected = others(LOGITS, LABELS) - LOGITS[np.arange(40), LABELS]
    margin = losses.margin(LABELS, tf.constant(LOGITS))
    np.testing.assert_allclose(margin, expected, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_margin_is_positive_exactly_if_misclassified(classes):
    logits = tf.constant(RNG.normal(size=(200, classes)), tf.float32)
    labels = tf.constant(RNG.integers(0, classes, size=200))
    wrong = misclassified(labels, logits).numpy()
    np.testing.assert_array_equal(losses.margin(labels, logits).numpy() > 0, wrong)
    assert wrong.any() and not wrong.all()


def test_nan_and_infinite_logits_are_misclassified():
    logits = tf.constant([[1.0, 0.0], [np.nan, 0.0], [np.inf, 0.0], [1.0, -np.inf]])
    wrong = misclassified(tf.zeros(4, tf.int64), logits)
    np.testing.assert_array_equal(wrong, [False, True, True, True])


def test_kl_divergence():
    p, q = LOGITS[:20], LOGITS[20:]
    soft_p, soft_q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (p, q))
    expected = np.sum(soft_p * np.log(soft_p / soft_q), axis=1)
    np.testing.assert_allclose(losses.kl_divergence(tf.constant(p), tf.constant(q)), expected)
    np.testing.assert_allclose(losses.kl_divergence(tf.constant(p), tf.constant(p)), np.zeros(20))


def test_kl_divergence_by_hand_and_its_gradients():
    # p = (1/2, 1/2), q = (3/4, 1/4): KL = ln(2 / sqrt(3)).
    p, q = tf.zeros([1, 2]), tf.math.log(tf.constant([[3.0, 1.0]]))
    with tf.GradientTape() as tape:
        tape.watch([p, q])
        value = losses.kl_divergence(p, q)
    np.testing.assert_allclose(value, [np.log(2 / np.sqrt(3))], rtol=1e-6)
    grad_p, grad_q = tape.gradient(value, [p, q])
    np.testing.assert_allclose(grad_q, [[0.25, -0.25]], rtol=1e-6)  # q - p
    # d/dz_p: p_i ((log p_i/q_i) - KL).
    logs = np.log([0.5 / 0.75, 0.5 / 0.25])
    np.testing.assert_allclose(grad_p[0], 0.5 * (logs - logs.mean()), rtol=1e-5)


def test_dlr_by_hand():
    # Sorted logits 4, 2, 1, .5, -1. Label 1: -(4 - 2)/(4 - 1) = -2/3. Label 0: -(1 - 4)/3 = 1.
    np.testing.assert_allclose(losses.dlr([1, 0], HAND), [-2 / 3, 1.0], rtol=1e-6)


def test_targeted_dlr_by_hand():
    # Denominator 4 - (1 + .5)/2 = 3.25. Label 1, target 2: -(4 - 2)/3.25.
    # Label 0, target 1: -(1 - 4)/3.25.
    found = losses.targeted_dlr([1, 0], [2, 1], HAND)
    np.testing.assert_allclose(found, [-2 / 3.25, 3 / 3.25], rtol=1e-6)


def test_dlr_does_not_depend_on_scale_or_shift():
    logits = tf.constant(LOGITS)
    np.testing.assert_allclose(
        losses.dlr(LABELS, 100.0 * logits + 7.0), losses.dlr(LABELS, logits), rtol=1e-9
    )
    targets = (LABELS + 1) % 6
    np.testing.assert_allclose(
        losses.targeted_dlr(LABELS, targets, 100.0 * logits + 7.0),
        losses.targeted_dlr(LABELS, targets, logits),
        rtol=1e-9,
    )


def test_few_classes_fall_back_to_differences():
    two, three = tf.constant([[1.0, 3.0]]), tf.constant([[1.0, 3.0, 2.0]])
    np.testing.assert_allclose(losses.dlr([0], two), [2.0])
    np.testing.assert_allclose(losses.targeted_dlr([0], [1], two), [2.0])
    np.testing.assert_allclose(losses.targeted_dlr([0], [2], three), [1.0])
    np.testing.assert_allclose(losses.dlr([0], three), [1.0])  # -(1 - 3)/(3 - 1)


def test_losses_take_any_integer_type_and_keep_the_dtype():
    for dtype in ("float32", "float64"):
        for labels in (np.int32([0]), np.int64([0])):
            for loss in (losses.cross_entropy, losses.margin, losses.dlr):
                assert loss(labels, tf.constant([[1.0, 2.0, 0.0]], dtype)).dtype == dtype
