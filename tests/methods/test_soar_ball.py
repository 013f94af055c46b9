"""SOAR at ball scale, against its formulas in float64: the step h, the measures, the point."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import (
    BATCH,
    SIDE,
    W,
    b,
    cross_entropy,
    gradient,
    keys,
    network,
    step_end,
    terms,
    x,
)

import soar_tf
from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.ops import curvature, norms, random

FREE = {"norm_clip": None, "penalty_clipnorm": None, "init": "zero"}


def drawn(direction=0, own_keys=None):
    """z and the uniform number that h is made of, as SOAR draws them."""
    own_keys = keys() if own_keys is None else own_keys
    own = random.derive(random.derive(own_keys, "curvature"), direction)
    z = random.normal(own, (SIDE,)).numpy().astype("float64")
    return z, random.uniform(random.derive(own, "h"), ()).numpy().astype("float64")


def moved(point, radius, direction=0, own_keys=None):
    z, share = drawn(direction, own_keys)
    return point + (share * radius)[:, None] * z / np.linalg.norm(z, axis=1, keepdims=True)


def relative(g, other):
    return np.linalg.norm(other - g, axis=1) / np.linalg.norm(g, axis=1)


def cosine(g, other):
    lengths = np.linalg.norm(g, axis=1) * np.linalg.norm(other, axis=1)
    return 1 - (g * other).sum(axis=1) / lengths


MEASURES = {"relative": relative, "cosine": cosine}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.2 * np.sqrt(SIDE)), ("l2", 0.2)])
def test_change_at_up_to_the_radius_of_the_ball(measure, norm, radius):
    got = terms(methods.SOAR(0.2, alpha="ball", measure=measure, norm=norm, **FREE))
    expected = MEASURES[measure](gradient(x), gradient(moved(x, radius)))
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got.loss, cross_entropy(x), rtol=1e-5)


def test_equation_11_over_the_same_step():
    z, share = drawn()
    own = random.derive(random.derive(keys(), "curvature"), 0)
    last = random.normal(random.derive(own, "z_1"), ()).numpy().astype("float64")
    radius = 0.2 * np.sqrt(SIDE)
    difference = (gradient(moved(x, radius)) - gradient(x)) / (share * radius)[:, None]
    image = np.linalg.norm(z, axis=1)[:, None] * difference + last[:, None] * gradient(x)
    expected = (SIDE * 0.04 + 1) / 2 * np.linalg.norm(image, axis=1)
    got = terms(methods.SOAR(0.2, alpha="ball", **FREE))
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-3)


@pytest.mark.parametrize("measure", MEASURES)
def test_directions_are_averaged(measure):
    values = np.stack(
        [MEASURES[measure](gradient(x), gradient(moved(x, 0.5, i))) for i in range(3)]
    )
    arguments = {"alpha": 0.5, "measure": measure, "num_directions": 3, **FREE}
    np.testing.assert_allclose(
        terms(methods.SOAR(0.2, **arguments)).penalty, values.mean(axis=0), rtol=1e-4, atol=1e-6
    )
    got = terms(methods.SOAR(0.2, estimator="root_mean_square", **arguments)).penalty
    np.testing.assert_allclose(got, np.sqrt((values**2).mean(axis=0)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_at_the_point_of_fgsm(measure):
    point = step_end("zero")
    method = methods.SOAR(0.2, alpha="ball", measure=measure, init="fgsm", norm_clip=None)
    got = terms(method)
    np.testing.assert_allclose(got.loss, cross_entropy(point), rtol=1e-5)
    expected = MEASURES[measure](gradient(point), gradient(moved(point, 0.2 * np.sqrt(SIDE))))
    np.testing.assert_allclose(got.penalty, expected, rtol=1e-3, atol=1e-6)
    assert method.train_settings["stop_below"] == 0.5 and not methods.SOAR().train_settings


def test_fgsms_step_may_have_another_length():
    got = terms(methods.SOAR(0.2, init="fgsm", step_size=0.05, norm_clip=None))
    np.testing.assert_allclose(got.loss, cross_entropy(step_end("zero", 0.05)), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e20])
@pytest.mark.parametrize("measure", MEASURES)
def test_shrinking_the_loss_does_not_lower_it(measure, scale):
    def scaled(labels, logits):
        return scale * tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    method = methods.SOAR(0.2, alpha="ball", measure=measure, **FREE)
    expected = terms(method).penalty
    np.testing.assert_allclose(
        terms(method, loss_fn=scaled).penalty, expected, rtol=1e-3, atol=1e-6
    )


def test_equation_11_does_shrink_with_the_loss():
    def small(labels, logits):
        return 1e-3 * tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    method = methods.SOAR(0.2, alpha="ball", **FREE)
    np.testing.assert_allclose(
        terms(method, loss_fn=small).penalty, 1e-3 * terms(method).penalty, rtol=1e-3
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_gradient_by_the_weights_through_both_points(measure):
    net = network()
    method = methods.SOAR(0.3, alpha="ball", measure=measure, **FREE)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(terms(method, net=net).penalty)
    got = tape.gradient(total, net.trainable_weights[0].value).numpy()

    def penalty(kernel):
        def slopes(points):
            z = points @ kernel + b
            e = np.exp(z - z.max(axis=1, keepdims=True))
            residual = e / e.sum(axis=1, keepdims=True) - np.eye(len(b))[[0, 1, 2, 1]]
            return residual @ kernel.T

        return MEASURES[measure](slopes(x), slopes(moved(x, 0.3 * np.sqrt(SIDE)))).sum()

    for place in ((0, 0), (2, 1), (4, 2)):
        shift = np.zeros_like(W.T)
        shift[place] = 1e-6
        expected = (penalty(W.T + shift) - penalty(W.T - shift)) / 2e-6
        np.testing.assert_allclose(got[place], expected, rtol=2e-3, atol=1e-4)
    # Scaling the kernel is no way down, to first order in the logits' size: see the page on theory.
    assert np.abs(got).max() > 0


@pytest.mark.parametrize("measure", MEASURES)
def test_no_penalty_and_no_nan_where_the_gradient_vanishes(measure):
    net = network()
    net.set_weights([np.zeros_like(W.T), b])
    with tf.GradientTape() as tape:
        method = methods.SOAR(0.2, alpha="ball", measure=measure, **FREE)
        penalty = terms(method, net=net).penalty
        total = tf.reduce_sum(penalty)
    np.testing.assert_array_equal(penalty, np.zeros(BATCH))
    slopes = tape.gradient(total, net.trainable_weights[0].value)
    assert slopes is None or np.all(np.isfinite(slopes))


def test_the_clip_is_on_the_measure_and_says_which_examples_pass():
    free = terms(methods.SOAR(0.2, alpha="ball", measure="cosine", **FREE)).penalty.numpy()
    clip = float(np.median(free))
    got = terms(methods.SOAR(0.2, alpha="ball", measure="cosine", init="zero", norm_clip=clip))
    np.testing.assert_allclose(got.penalty, np.minimum(free, clip), rtol=1e-5)
    np.testing.assert_array_equal(got.diagnostics["unclipped"], free <= clip)
    np.testing.assert_allclose(got.diagnostics["curvature_norm"], free, rtol=1e-5)


def training_keys(seed):
    return random.example_keys(seed, tf.range(BATCH), step=0, purpose="training")


def train(**arguments):
    # The clip lies between the examples' values.
    point = step_end("zero")
    other = moved(point, 0.2 * np.sqrt(SIDE), own_keys=training_keys(3))
    clip = float(np.median(relative(gradient(point), gradient(other))))
    method = methods.SOAR(0.2, alpha="ball", measure="relative", norm_clip=clip, init="fgsm")
    model = soar_tf.RobustModel(network(), method, seed=3, **arguments)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    images, labels = x.astype("float32"), np.array([0, 1, 2, 1])
    logs = [model.train_on_batch(images, labels, return_dict=True) for _ in range(3)]
    assert any(0 < log["unclipped"] < 1 for log in logs)
    return np.concatenate([np.ravel(weight) for weight in model.network.get_weights()])


@pytest.mark.parametrize("arguments", [{"skip_clipped": True}, {"micro_batch": 3}])
def test_skipped_examples_and_micro_batches_give_the_same_steps(arguments):
    np.testing.assert_allclose(train(**arguments), train(skip_clipped=False), atol=1e-5)


def test_epsilon_may_grow_from_zero_at_ball_scale():
    method = methods.SOAR("ramp(0, 0.2, steps=4)", alpha="ball", measure="cosine", **FREE)
    assert not np.any(np.isnan(terms(method.at(0)).penalty))
    radius = 0.1 * np.sqrt(SIDE)
    expected = cosine(gradient(x), gradient(moved(x, radius)))
    np.testing.assert_allclose(terms(method.at(2)).penalty, expected, rtol=1e-4, atol=1e-6)


def test_defaults_are_the_papers():
    config = methods.SOAR().get_config()
    assert (config["alpha"], config["init"], config["measure"]) == (0.03, "pgd1", "absolute")


@pytest.mark.parametrize("extra", [{"hvp": "exact"}, {"full_vector": True}])
def test_parts_of_equation_11_are_refused(extra):
    with pytest.raises(InputError, match="`measure` must be 'absolute' with full_vector=True or"):
        methods.SOAR(measure="cosine", **extra)


def test_unknown_measure_and_step():
    with pytest.raises(InputError, match="Did you mean 'cosine'"):
        methods.SOAR(measure="cosin")
    with pytest.raises(InputError, match="`alpha` must be"):
        methods.SOAR(alpha="bal")


# What the page on theory says.


def test_the_mean_relative_change_bounds_the_distance_from_the_tangent():
    # |l(x + R u) - l(x) - R g.u| <= R |g| E[relative change at x + h u], h ~ U(0, R), u fixed.
    generator, radius, count = np.random.default_rng(0), 1.5, 2000
    steps = (np.arange(count) + 0.5) / count * radius
    seen = []
    for _ in range(20):
        u = generator.normal(size=x.shape)
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        g = gradient(x)
        distance = np.abs(
            cross_entropy(x + radius * u) - cross_entropy(x) - radius * (g * u).sum(axis=1)
        )
        change = np.mean([relative(g, gradient(x + h * u)) for h in steps], axis=0)
        bound = radius * np.linalg.norm(g, axis=1) * change
        assert np.all(distance <= bound + 1e-9)
        seen.append(distance / bound)
    assert np.max(seen) > 0.3  # a bound that says something


def test_the_relative_change_bounds_the_angle():
    generator = np.random.default_rng(0)
    a, c = generator.normal(size=(2, 500, 3))
    change, turn = relative(a, c), cosine(a, c)
    sine = np.sqrt(1 - (1 - turn) ** 2)
    assert np.all(sine[turn < 1] <= change[turn < 1] + 1e-12)
    assert np.all(change[turn >= 1] >= 1)


def test_the_cosine_says_nothing_on_lengths():
    a = tf.constant([[1.0, 2.0]])
    np.testing.assert_allclose(norms.cosine(a, 100 * a), [1.0], rtol=1e-6)
    np.testing.assert_allclose(norms.relative_change(a, 100 * a), [99.0], rtol=1e-5)


def test_relative_change_of_tiny_and_huge_vectors():
    a = tf.constant([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]])
    other = tf.constant([[3e-30, 6.5e-30], [3e30, 6.5e30], [1.0, 0.0]])
    np.testing.assert_allclose(norms.relative_change(a, other), [0.5, 0.5, 0.0], rtol=1e-5)


def test_radius_of_the_ball():
    assert curvature.ball_radius(3072, 8 / 255) == pytest.approx(1.7388, abs=1e-4)
    assert curvature.ball_radius(3072, 0.5, "l2") == 0.5
