"""The bound in logit space, in float64: it holds, where it is tight, and what is no bound."""

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.ops import losses

COUNT = 400


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def draw(classes, spread, move, seed=0):
    """Logits, moved logits and labels; spreads from indifferent to certain."""
    generator = np.random.default_rng(seed)
    z = spread * generator.normal(size=(COUNT, classes))
    change = move * generator.normal(size=(COUNT, classes))
    return z, z + change, generator.integers(0, classes, COUNT)


def cross_entropy(targets):
    """The loss of distributions `targets` `[B, C]`, as a function of logits."""
    targets = tf.constant(targets)
    return lambda z: -tf.reduce_sum(targets * tf.nn.log_softmax(z), axis=1)


CASES = [
    (classes, spread, move)
    for classes in (2, 3, 10)
    for spread in (0.0, 1.0, 20.0)
    for move in (1e-3, 1.0, 30.0)
]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("classes", "spread", "move"), CASES)
def test_the_bound_holds(classes, spread, move, soft):
    z, z_adv, labels = draw(classes, spread, move)
    targets = np.eye(classes)[labels]
    if soft:
        targets = 0.7 * targets + 0.3 * softmax(draw(classes, 1.0, 0.0, 1)[0])
    loss_fn = cross_entropy(targets)
    bound = losses.quadratic_bound(loss_fn, tf.constant(z), tf.constant(z_adv)).numpy()
    loss = loss_fn(tf.constant(z_adv)).numpy()
    assert bound.dtype == np.float64
    assert np.all(bound >= loss - 1e-12 * (1 + loss))
    assert np.any(bound > loss)


def test_it_is_the_loss_where_the_logits_agree():
    z, _, labels = draw(10, 3.0, 0.0)
    loss_fn = cross_entropy(np.eye(10)[labels])
    bound = losses.quadratic_bound(loss_fn, tf.constant(z), tf.constant(z))
    np.testing.assert_array_equal(bound, loss_fn(tf.constant(z)))


def test_it_is_tight_to_second_order_for_two_equal_classes():
    # p = (1/2, 1/2) has the largest possible eigenvalue, 1/2, along (1, -1).
    z, loss_fn = tf.zeros([1, 2], tf.float64), cross_entropy(np.array([[1.0, 0.0]]))
    excess = [
        float(losses.quadratic_bound(loss_fn, z, z_adv)[0] - loss_fn(z_adv)[0])
        for z_adv in (tf.constant([[h, -h]], tf.float64) for h in (1e-2, 2e-2))
    ]
    # The next term of log cosh is of fourth order: h^4 / 12.
    np.testing.assert_allclose(excess, [1e-8 / 12, 16e-8 / 12], rtol=1e-3)


def test_hessian_is_a_variance_and_has_no_eigenvalue_above_a_half():
    z, z_adv, _ = draw(10, 2.0, 1.0)
    p, d = softmax(z), z_adv - z
    hessians = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    form = np.einsum("bi,bij,bj->b", d, hessians, d)
    variance = losses.weighted_variance(tf.constant(p), tf.constant(d)).numpy()
    np.testing.assert_allclose(variance, form, rtol=1e-9)
    largest = np.linalg.eigvalsh(hessians)[:, -1]
    spread = d.max(axis=1) - d.min(axis=1)
    square = (d**2).sum(axis=1)
    # The ladder: the own form, a quarter of the squared range, half of the squared length.
    assert np.all(form <= 0.25 * spread**2 + 1e-12)
    assert np.all(0.25 * spread**2 <= 0.5 * square + 1e-12)
    assert np.all(form <= largest * square + 1e-12) and np.all(largest <= 0.5 + 1e-12)


def test_the_range_gives_a_tighter_bound():
    z, z_adv, labels = draw(10, 2.0, 3.0)
    loss_fn = cross_entropy(np.eye(10)[labels])
    d = z_adv - z
    quadratic = losses.quadratic_bound(loss_fn, tf.constant(z), tf.constant(z_adv)).numpy()
    tighter = quadratic - 0.25 * (d**2).sum(axis=1) + 0.125 * np.ptp(d, axis=1) ** 2
    assert np.all(tighter <= quadratic + 1e-12)
    assert np.all(tighter >= loss_fn(tf.constant(z_adv)).numpy() - 1e-12)


def test_the_expansion_with_its_own_hessian_is_no_bound():
    # A classifier that is sure has no curvature left; the loss still outgrows the expansion.
    z, z_adv = np.array([[10.0, 0.0]]), np.array([[0.0, 10.0]])
    loss_fn = cross_entropy(np.array([[1.0, 0.0]]))
    p, d = softmax(z), z_adv - z
    slope = ((p - np.array([[1.0, 0.0]])) * d).sum(axis=1)
    form = losses.weighted_variance(tf.constant(p), tf.constant(d)).numpy()
    expansion = loss_fn(tf.constant(z)).numpy() + slope + 0.5 * form
    assert expansion[0] < 0.02 < 10.0 < loss_fn(tf.constant(z_adv)).numpy()[0]


def test_divergence_is_below_the_same_quadratic():
    # KL(p || q) is cross-entropy of p at q's logits minus its least value, at p's own.
    z, z_adv, _ = draw(10, 2.0, 2.0)
    divergence = losses.kl_divergence(tf.constant(z), tf.constant(z_adv)).numpy()
    assert np.all(divergence <= 0.25 * ((z_adv - z) ** 2).sum(axis=1) + 1e-12)
    near = z + 1e-4 * (z_adv - z)
    small = losses.kl_divergence(tf.constant(z), tf.constant(near)).numpy()
    variance = losses.weighted_variance(tf.constant(softmax(z)), tf.constant(near - z)).numpy()
    np.testing.assert_allclose(small, 0.5 * variance, rtol=2e-3)
