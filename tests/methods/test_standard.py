"""Standard training against formulas."""

import keras
import numpy as np
from linear_oracle import CLASSES, W, b, cross_entropy, network, probabilities, terms, x, y

import soar_tf


def test_terms_are_the_cross_entropy_and_the_logits():
    got = terms(soar_tf.methods.Standard())
    np.testing.assert_allclose(got.loss, cross_entropy(x), rtol=1e-5)
    np.testing.assert_allclose(got.logits, x @ W.T + b, rtol=1e-5)
    assert got.penalty is None


def test_one_step_of_sgd():
    # The gradient of the mean cross-entropy is mean (p - e_y) x^T by W, mean (p - e_y) by b.
    model = soar_tf.RobustModel(network(), "standard")
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    model.train_on_batch(x.astype("float32"), y)
    error = probabilities(x) - np.eye(CLASSES)[y]
    kernel, bias = model.network.get_weights()
    np.testing.assert_allclose(kernel, (W - 0.5 * error.T @ x / len(x)).T, rtol=1e-5)
    np.testing.assert_allclose(bias, b - 0.5 * error.mean(axis=0), rtol=1e-5)
