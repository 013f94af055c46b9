"""MART against formulas and an independent PGD."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import (
    BATCH,
    cross_entropy,
    gradient,
    keys,
    kl,
    probabilities,
    sign_steps,
    terms,
    uniform_start,
    x,
    y,
)

import soar_tf
from soar_tf.errors import InputError
from soar_tf.ops import random


@pytest.mark.parametrize(("label", "q_label", "q_other"), [(0, 0.25, 0.75), (1, 0.75, 0.25)])
def test_terms_by_hand(label, q_label, q_other):
    # Logits (0, x): p = (1/2, 1/2) at 0 and q = (1/4, 3/4) at ln 3.
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    net.set_weights([np.array([[0.0, 1.0]])])
    method = soar_tf.methods.MART()
    method.attack.perturb = lambda *args, **kwargs: tf.constant([[np.log(3.0)]], tf.float32)
    got = terms(method, np.zeros((1, 1)), np.array([label]), net)
    np.testing.assert_allclose(got.loss, [-np.log(q_label) - np.log(1.0001 - q_other)], rtol=1e-5)
    np.testing.assert_allclose(got.penalty, [0.5 * np.log(4 / 3) * 0.5], rtol=1e-5)
    assert got.penalty_weight == 5.0


def test_against_an_independent_pgd():
    start = x + uniform_start(random.derive(keys(), 0), 0.2)
    end = sign_steps(start, x, gradient, 3, 0.05, 0.2)
    p, q = probabilities(x), probabilities(end)
    rows = np.arange(BATCH)
    others = q.copy()
    others[rows, y] = 0
    got = terms(soar_tf.methods.MART(0.2, steps=3))
    loss = cross_entropy(end) - np.log(1.0001 - others.max(axis=1))
    np.testing.assert_allclose(got.loss, loss, rtol=1e-4)
    np.testing.assert_allclose(got.penalty, kl(p, q) * (1 - p[rows, y]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("form", ["column", "one_hot"])
def test_other_forms_of_labels(form):
    labels = y[:, None] if form == "column" else np.eye(3, dtype="float32")[y]
    method = soar_tf.methods.MART(0.2, steps=1)

    def loss_fn(labels, logits):
        one_hot = form == "one_hot"
        plain = tf.argmax(labels, axis=1) if one_hot else tf.reshape(labels, [-1])
        return tf.nn.sparse_softmax_cross_entropy_with_logits(plain, logits)

    got, expected = terms(method, y=labels, loss_fn=loss_fn), terms(method)
    np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-6)
    np.testing.assert_allclose(got.penalty, expected.penalty, rtol=1e-6)


def test_one_logit_is_refused():
    net = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    loss_fn = lambda y, z: tf.reduce_sum(z, axis=1)  # noqa: E731
    with pytest.raises(InputError, match="at least 2 classes"):
        terms(soar_tf.methods.MART(), net=net, loss_fn=loss_fn)
