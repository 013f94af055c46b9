"""SOAR against formulas: a softmax-linear network, a quadratic loss, one step by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import (
    BATCH,
    SIDE,
    cross_entropy,
    draw,
    gradient,
    hessians,
    keys,
    quadratic,
    sign_steps,
    terms,
    uniform_start,
    x,
)

import soar_tf
from soar_tf.ops import projections, random

FREE = {"norm_clip": None, "penalty_clipnorm": None, "init": "zero"}


def directions(own_keys, side=SIDE):
    """z_d and z_1 of the first direction, as SOAR draws them from its keys."""
    drawn = random.derive(random.derive(own_keys, "curvature"), 0)
    z = random.normal(drawn, (side,)).numpy().astype("float64")
    last = random.normal(random.derive(drawn, "z_1"), ()).numpy().astype("float64")
    return z, last


def factor(epsilon, side=SIDE):
    return (side * epsilon**2 + 1) / 2


def test_exact_product_on_a_softmax_linear_network():
    z, last = directions(keys())
    product = np.stack([H @ v for H, v in zip(hessians(x), z, strict=True)])
    image = product + last[:, None] * gradient(x)
    got = terms(soar_tf.methods.SOAR(0.1, hvp="exact", **FREE))
    expected = factor(0.1) * np.linalg.norm(image, axis=1)
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-4)
    np.testing.assert_allclose(got.loss, cross_entropy(x), rtol=1e-5)


def test_full_vector_adds_the_last_component():
    z, last = directions(keys())
    product = np.stack([H @ v for H, v in zip(hessians(x), z, strict=True)])
    g = gradient(x)
    image = np.column_stack([product + last[:, None] * g, (g * z).sum(axis=1) + last])
    got = terms(soar_tf.methods.SOAR(0.1, hvp="exact", full_vector=True, **FREE))
    np.testing.assert_allclose(got.penalty, factor(0.1) * np.linalg.norm(image, axis=1), rtol=1e-4)


def test_finite_difference_on_a_softmax_linear_network():
    z, last = directions(keys())
    length = np.linalg.norm(z, axis=1, keepdims=True)
    h = 0.03
    product = length * (gradient(x + h * z / length) - gradient(x)) / h
    expected = factor(0.1) * np.linalg.norm(product + last[:, None] * gradient(x), axis=1)
    # alpha = h_min fixes h.
    got = terms(soar_tf.methods.SOAR(0.1, alpha=h, h_min=h, **FREE))
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-3)


def test_finite_difference_of_a_quadratic_loss_is_exact():
    root = draw((SIDE, SIDE), 5)
    A = root + root.T
    net, loss_fn = quadratic(A)
    z, last = directions(keys())
    image = z @ A + last[:, None] * (x @ A)
    got = terms(soar_tf.methods.SOAR(0.1, h_min=0.01, **FREE), net=net, loss_fn=loss_fn)
    np.testing.assert_allclose(got.penalty, factor(0.1) * np.linalg.norm(image, axis=1), rtol=1e-3)


def test_expansion_point_of_pgd1():
    method = soar_tf.methods.SOAR(0.2, norm_clip=None)
    start = x + uniform_start(random.derive(random.derive(keys(), "init"), 0), 0.2)
    end = sign_steps(start, x, gradient, 1, 0.05, 0.2)
    np.testing.assert_allclose(terms(method).loss, cross_entropy(end), rtol=1e-5)


def test_l2_threat_model():
    method = soar_tf.methods.SOAR(0.2, norm="l2", hvp="exact", norm_clip=None, step_size=0.15)
    drawn = random.derive(random.derive(keys(), "init"), 0)
    delta = projections.random_in_ball(drawn, (SIDE,), 0.2, "l2").numpy().astype("float64")
    g = gradient(x + delta)
    delta += 0.15 * g / np.linalg.norm(g, axis=1, keepdims=True)
    delta *= np.minimum(1, 0.2 / np.linalg.norm(delta, axis=1, keepdims=True))
    point = x + delta  # the box is further away
    z, last = directions(keys())
    product = np.stack([H @ v for H, v in zip(hessians(point), z, strict=True)])
    image = product + last[:, None] * gradient(point)
    got = terms(method)
    np.testing.assert_allclose(got.loss, cross_entropy(point), rtol=1e-5)
    expected = (0.2**2 + 1) / 2 * np.linalg.norm(image, axis=1)
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-4)


def test_norm_clip_is_on_the_norm():
    got = terms(soar_tf.methods.SOAR(0.1, norm_clip=0.01, init="zero"))
    np.testing.assert_allclose(got.penalty, factor(0.1) * 0.01, rtol=1e-5)


def test_norm_clip_of_the_whole_batch_scales_every_penalty():
    free = terms(soar_tf.methods.SOAR(0.1, **FREE)).penalty.numpy()
    clip = 0.1 * free.mean() / factor(0.1)
    arguments = {**FREE, "norm_clip": clip, "norm_clip_scope": "batch"}
    got = terms(soar_tf.methods.SOAR(0.1, **arguments)).penalty
    np.testing.assert_allclose(got, 0.1 * free, rtol=1e-4)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_one_step_of_sgd_by_hand(clip):
    # Linear model f = w.x with squared error l = r^2, r = w.x - y. Its input gradient is 2 r w, its
    # Hessian 2 w w^T, so that the vector in eq. 11 is
    #     2 w (w.z_d) + z_1 2 r w = 2 s w,   s = w.z_d + z_1 r,
    # and R = k 2 |s| |w| with k = (d eps^2 + 1) / 2. By w, with ds/dw = z_d + z_1 x:
    #     dR/dw = 2 k (sign(s) (z_d + z_1 x) |w| + |s| w / |w|),   dl/dw = 2 r x.
    # The finite difference of a quadratic is exact, whatever h.
    w = np.array([0.5, -0.25, 1.0, 0.75, -1.0])
    targets = np.array([1.0, 0.0, -1.0, 0.5])
    net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(1, use_bias=False)])
    net.set_weights([w[:, None]])
    method = soar_tf.methods.SOAR(
        0.1, lambda_=0.5, h_min=0.02, init="zero", norm_clip=None, penalty_clipnorm=clip
    )
    model = soar_tf.RobustModel(net, method, seed=4)
    model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
    model.train_on_batch(x.astype("float32"), targets.astype("float32")[:, None])

    z, last = directions(random.example_keys(4, tf.range(BATCH), step=0, purpose="training"))
    r = x @ w - targets
    s = z @ w + last * r
    length = np.linalg.norm(w)
    along = np.sign(s)[:, None] * (z + last[:, None] * x) * length
    penalty = 2 * factor(0.1) * (along + np.abs(s)[:, None] * w / length)
    penalty = 0.5 * penalty.mean(axis=0)
    if clip is not None:
        assert np.linalg.norm(penalty) > clip
        penalty *= clip / np.linalg.norm(penalty)
    step = (2 * r[:, None] * x).mean(axis=0) + penalty
    got = model.network.get_weights()[0][:, 0]
    np.testing.assert_allclose(got - w, -0.1 * step, rtol=2e-3, atol=1e-5)


def test_a_step_along_the_gradient_itself():
    method = soar_tf.methods.SOAR(0.2, norm_clip=None, step_size=0.05, step_direction="gradient")
    start = x + uniform_start(random.derive(random.derive(keys(), "init"), 0), 0.2)
    moved = np.clip(start + 0.05 * gradient(start), x - 0.2, x + 0.2)
    np.testing.assert_allclose(terms(method).loss, cross_entropy(np.clip(moved, 0, 1)), rtol=1e-5)
