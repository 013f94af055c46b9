"""QUB against its formula, and that it is a bound."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import (
    CLASSES,
    SIDE,
    W,
    b,
    cross_entropy,
    gradient,
    keys,
    network,
    probabilities,
    recording_network,
    sign_steps,
    terms,
    uniform_start,
    x,
    y,
)

from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.ops import random
from soar_tf.training import losses

LABELS = np.eye(CLASSES)[y]


def point(steps, start, epsilon=0.2):
    began, ball, length = x, epsilon, epsilon if steps == 1 else epsilon / 4
    own_keys = random.derive(keys(), 0)
    if start == "noise":
        began, ball = np.clip(x + uniform_start(own_keys, 2 * epsilon), 0, 1), 1.0
    elif start == "random":
        began = x + uniform_start(own_keys, epsilon)
        length = 1.25 * epsilon if steps == 1 else length
    return sign_steps(began, x, gradient, steps, length, ball)


def bound(end, targets=LABELS):
    change = (end - x) @ W.T
    slope = ((probabilities(x) - targets) * change).sum(axis=1)
    loss = -(targets * np.log(probabilities(x))).sum(axis=1)
    return loss + slope + 0.25 * (change**2).sum(axis=1)


@pytest.mark.parametrize(
    ("arguments", "steps", "start"),
    [
        ({}, 1, "noise"),
        ({"start": "zero"}, 1, "zero"),
        ({"start": "random"}, 1, "random"),
        ({"steps": 4}, 4, "random"),
        ({"steps": 3, "start": "zero"}, 3, "zero"),
    ],
)
def test_against_the_formula(arguments, steps, start):
    end = point(steps, start)
    got = terms(methods.QUB(0.2, **arguments))
    np.testing.assert_allclose(got.loss, bound(end), rtol=1e-5)
    np.testing.assert_allclose(got.logits, end @ W.T + b, rtol=1e-4)
    assert np.all(bound(end) > cross_entropy(end))


def test_a_share_of_the_bound():
    end = point(1, "noise")
    got = terms(methods.QUB(0.2, share="1/4"))
    np.testing.assert_allclose(got.loss, 0.25 * bound(end) + 0.75 * cross_entropy(end), rtol=1e-5)
    decreasing = methods.QUB(0.2, share="ramp(1, 0, steps=4)")
    np.testing.assert_allclose(terms(decreasing.at(3)).loss, got.loss, rtol=1e-5)


def test_label_smoothing_keeps_the_bound():
    smoothed = losses.per_example(losses.default_loss(0.3))
    targets = 0.7 * LABELS + 0.3 / CLASSES

    def ascent(at):
        return (probabilities(at) - targets) @ W

    end = sign_steps(x, x, ascent, 1, 0.2, 0.2)
    got = terms(methods.QUB(0.2, start="zero"), loss_fn=smoothed)
    np.testing.assert_allclose(got.loss, bound(end, targets), rtol=1e-5)


def test_gradient_flows_through_both_points():
    # With d = z' - z and H = diag(p) - p p^T: dQ/dz = H d - d / 2, dQ/dz' = p - y + d / 2.
    net = network()
    method = methods.QUB(0.2, start="zero")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(terms(method, net=net).loss)
    got = tape.gradient(total, net.trainable_weights[0].value).numpy()
    end = point(1, "zero")
    p, d = probabilities(x), (end - x) @ W.T
    curved = p * d - p * (p * d).sum(axis=1, keepdims=True)
    expected = x.T @ (curved - d / 2) + end.T @ (p - LABELS + d / 2)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_clean_images_go_through_with_the_points_as_one_batch():
    net, seen = recording_network()
    terms(methods.QUB(0.2), net=net)
    assert [len(batch) for batch in seen] == [4, 8]
    normed = keras.Sequential(
        [keras.Input((SIDE,)), keras.layers.BatchNormalization(momentum=0.9), network()]
    )
    method = methods.QUB(0.2)
    method.attack.perturb = lambda *args, **kwargs: tf.constant(x + 0.1, tf.float32)
    terms(method, net=normed)
    both = np.concatenate([x, x + 0.1])
    np.testing.assert_allclose(normed.layers[0].moving_mean, 0.1 * both.mean(axis=0), rtol=1e-5)


def test_several_steps_are_not_watched_and_start_in_the_ball():
    method = methods.QUB(steps=10)
    assert method.train_settings == {} and method.attack.random_start and method.start is None
    assert method.attack.effective_step_size == pytest.approx(2 / 255)


def test_bad_arguments():
    with pytest.raises(InputError, match="a single step and the linf norm"):
        methods.QUB(steps=3, start="noise")
    with pytest.raises(InputError, match="`share`"):
        methods.QUB(share=1.5)
    net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(1)])
    with pytest.raises(InputError, match="at least 2 classes"):
        terms(methods.QUB(), net=net, loss_fn=lambda _, z: tf.reduce_sum(z, axis=1))
