"""Margin and DLR as the loss that an inner step climbs, or that SOAR bounds."""

import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import CLASSES, SIDE, W, b, cross_entropy, draw, keys, sign_steps, terms, x, y
from linear_oracle import uniform_start as start

from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.methods import inner_loss
from soar_tf.ops import random


def margin_gradient(point):
    """Of the largest other logit minus the label's, at a softmax-linear network."""
    logits = point @ W.T + b
    others = np.where(np.eye(CLASSES)[y] > 0, -np.inf, logits)
    return W[others.argmax(axis=1)] - W[y]


def test_adversarial_training_climbs_the_margin():
    method = methods.Adversarial(0.2, steps=3, inner_loss="margin")
    own = random.derive(keys(), 0)
    end = sign_steps(x + start(own, 0.2), x, margin_gradient, 3, 0.05, 0.2)
    # Trained on the cross-entropy there, all the same.
    np.testing.assert_allclose(terms(method).loss, cross_entropy(end), rtol=1e-4)


def test_soars_point_climbs_the_margin():
    own = random.derive(random.derive(keys(), "init"), 0)
    end = sign_steps(x + start(own, 0.2), x, margin_gradient, 1, 0.05, 0.2)
    got = terms(methods.SOAR(0.2, inner_loss="margin"))
    np.testing.assert_allclose(got.loss, cross_entropy(end), rtol=1e-5)


def test_soar_bounds_the_margins_growth():
    # The margin is linear, so its Hessian is 0 and eq. 11 is |z_1| times its gradient's norm.
    got = terms(methods.SOAR(0.1, init="zero", norm_clip=None, penalty_loss="margin", hvp="exact"))
    drawn = random.derive(random.derive(keys(), "curvature"), 0)
    last = random.normal(random.derive(drawn, "z_1"), ()).numpy()
    expected = (SIDE * 0.01 + 1) / 2 * np.abs(last) * np.linalg.norm(margin_gradient(x), axis=1)
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-4)
    np.testing.assert_allclose(got.loss, cross_entropy(x), rtol=1e-5)
    assert got.loss_gradients is None


@pytest.mark.parametrize("name", ["cross_entropy", "margin", "dlr"])
def test_integer_and_one_hot_labels_give_the_same(name):
    logits = tf.constant(draw((4, CLASSES), 7), tf.float32)
    loss_fn = inner_loss.choose(name, None)
    np.testing.assert_allclose(
        loss_fn(tf.constant(y), logits), loss_fn(tf.one_hot(y, CLASSES), logits), rtol=1e-6
    )


def test_unknown_names():
    for cls, argument in [(methods.SOAR, "penalty_loss"), (methods.Adversarial, "inner_loss")]:
        with pytest.raises(InputError, match="Did you mean 'margin'"):
            cls(**{argument: "margn"})
