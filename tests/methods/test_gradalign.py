"""GradAlign against its formula."""

import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import (
    W,
    b,
    cross_entropy,
    gradient,
    hessians,
    keys,
    network,
    quadratic,
    recording_network,
    step_end,
    terms,
    uniform_start,
    x,
    y,
)

import soar_tf
from soar_tf import methods
from soar_tf.ops import norms, random


def cosine(a, c):
    return (a * c).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(c, axis=1)


def moved(epsilon):
    return x + uniform_start(random.derive(keys(), "alignment"), epsilon)


@pytest.mark.parametrize("start", ["zero", "random", "noise"])
def test_loss_at_the_step_and_cosine_of_two_gradients(start):
    got = terms(methods.GradAlign(0.2, lambda_=0.7, start=start))
    np.testing.assert_allclose(got.loss, cross_entropy(step_end(start)), rtol=1e-5)
    expected = 1 - cosine(gradient(x), gradient(moved(0.2)))
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-3, atol=1e-6)
    assert got.penalty_weight == 0.7


def half_square(_, outputs):
    return 0.5 * tf.reduce_sum(tf.square(outputs), axis=1)


# For logits x K and this loss the gradient by x is K K^T x.
DIAGONAL = np.array([1.0, 2.0, 0.5, 4.0, 3.0])
ROOT = np.diag(np.sqrt(DIAGONAL))


def penalty_with_fixed_gradient(K):
    """The summed penalty where only the moved point's gradient depends on K."""
    return (1 - cosine(x * DIAGONAL, moved(0.2) @ (K @ K.T))).sum()


def test_gradient_flows_through_the_moved_point_only():
    net, _ = quadratic(np.eye(len(ROOT)))
    net.set_weights([ROOT])
    with tf.GradientTape() as tape:
        got = terms(methods.GradAlign(0.2), net=net, loss_fn=half_square)
        total = tf.reduce_sum(got.penalty)
    slopes = tape.gradient(total, net.trainable_weights[0].value).numpy()
    expected, step = np.zeros_like(ROOT), 1e-6
    for place in np.ndindex(*ROOT.shape):
        shift = np.zeros_like(ROOT)
        shift[place] = step
        up, down = (penalty_with_fixed_gradient(ROOT + sign * shift) for sign in (1, -1))
        expected[place] = (up - down) / (2 * step)
    np.testing.assert_allclose(slopes, expected, rtol=1e-3, atol=1e-5)


def test_scaling_the_loss_does_not_change_the_penalty():
    def tiny(labels, logits):
        return 1e-25 * tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    got, expected = terms(methods.GradAlign(0.2), loss_fn=tiny), terms(methods.GradAlign(0.2))
    np.testing.assert_allclose(got.penalty, expected.penalty, rtol=1e-3, atol=1e-6)


def test_no_penalty_and_no_nan_where_a_gradient_vanishes():
    net = network()
    net.set_weights([np.zeros_like(W.T), b])
    with tf.GradientTape() as tape:
        got = terms(methods.GradAlign(0.2), net=net)
        total = tf.reduce_sum(got.penalty)
    np.testing.assert_array_equal(got.penalty, np.zeros(4))
    slopes = tape.gradient(total, net.trainable_weights[0].value)
    assert slopes is None or np.all(np.isfinite(slopes))


def test_from_zero_the_step_takes_the_gradient_that_the_penalty_needs():
    net, seen = recording_network()
    terms(methods.GradAlign(0.2), net=net)
    assert len(seen) == 3  # x, x + eta, and the step's end


def test_cosine_by_hand():
    a = tf.constant([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [1e-30, 0.0]])
    c = tf.constant([[4.0, 3.0], [-2.0, 0.0], [1.0, 1.0], [5e-31, 0.0]])
    np.testing.assert_allclose(norms.cosine(a, c), [0.96, -1.0, 1.0, 1.0], rtol=1e-6)


def test_curvature_alone_turns_the_gradient():
    # To first order in a small eta the penalty is |P H eta|^2 / (2 |g|^2), P off the gradient.
    epsilon = 1e-3
    eta, g = uniform_start(random.derive(keys(), "alignment"), epsilon), gradient(x)
    turned = np.stack([H @ e for H, e in zip(hessians(x), eta, strict=True)])
    along = (turned * g).sum(axis=1, keepdims=True) / (g * g).sum(axis=1, keepdims=True)
    expected = ((turned - along * g) ** 2).sum(axis=1) / (2 * (g * g).sum(axis=1))
    exact = 1 - cosine(g, gradient(x + eta, y))
    np.testing.assert_allclose(exact, expected, rtol=0.05)


def test_arguments_read_and_checked():
    method = soar_tf.methods.get("gradalign", epsilon="16/255", lambda_="2", start="random")
    assert method.get_config() == {
        "epsilon": 16 / 255,
        "lambda_": 2.0,
        "step_size": None,
        "start": "random",
    }
