"""Adversarial training: the loss at the point of an independent PGD."""

import numpy as np
import pytest
from linear_oracle import cross_entropy, gradient, keys, sign_steps, terms, uniform_start, x

import soar_tf
from soar_tf.ops import random


@pytest.mark.parametrize("steps", [1, 3])
def test_loss_is_taken_where_pgd_ends(steps):
    got = terms(soar_tf.methods.Adversarial(epsilon=0.2, steps=steps))
    start = x + uniform_start(random.derive(keys(), 0), 0.2)
    end = sign_steps(start, x, gradient, steps, 0.05, 0.2)
    np.testing.assert_allclose(got.loss, cross_entropy(end), rtol=1e-5)


def test_without_random_start_and_in_l2():
    got = terms(soar_tf.methods.Adversarial(0.2, 1, 0.1, "l2", random_start=False))
    g = gradient(x)
    end = x + 0.1 * g / np.linalg.norm(g, axis=1, keepdims=True)
    np.testing.assert_allclose(got.loss, cross_entropy(end), rtol=1e-5)
