"""N-FGSM against its formula."""

import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import cross_entropy, gradient, keys, terms, uniform_start, x

import soar_tf
from soar_tf.errors import InputError
from soar_tf.methods import crafting
from soar_tf.ops import random


@pytest.mark.parametrize(
    ("arguments", "noise", "length"),
    [({}, 2.0, 0.1), ({"step_size": "0.15"}, 2.0, 0.15), ({"noise": 0.5}, 0.5, 0.1)],
)
def test_one_step_from_wide_noise_without_projection(arguments, noise, length):
    start = np.clip(x + uniform_start(random.derive(keys(), 0), noise * 0.1), 0, 1)
    end = np.clip(start + length * np.sign(gradient(start)), 0, 1)
    got = terms(soar_tf.methods.NFGSM(epsilon="1/10", **arguments))
    np.testing.assert_allclose(got.loss, cross_entropy(end), rtol=1e-5)
    if not arguments:
        assert np.abs(end - x).max() > 0.2  # twice the ball's radius


def test_without_noise_it_is_fgsm():
    end = np.clip(x + 0.1 * np.sign(gradient(x)), 0, 1)
    got = terms(soar_tf.methods.NFGSM(epsilon=0.1, noise=0))
    np.testing.assert_allclose(got.loss, cross_entropy(end), rtol=1e-5)


def test_start_and_step_stay_in_the_pixel_box():
    attack = crafting.FromNoise(0.3)
    corner = tf.constant(np.where(x > 0.5, 1.0, 0.0), tf.float32)
    start = attack.start(corner, keys())
    moved = attack.step(start, corner, tf.ones_like(start))
    for point in (start, moved):
        assert point.numpy().min() >= 0 and point.numpy().max() <= 1
    assert np.any(start != corner)


def test_epsilon_may_follow_a_schedule_and_the_noise_with_it():
    method = soar_tf.methods.NFGSM(epsilon="ramp(0, 0.2, steps=10)")
    half = method.at(5)
    np.testing.assert_allclose(terms(half).loss, terms(soar_tf.methods.NFGSM(0.1)).loss, rtol=1e-5)
    np.testing.assert_allclose(terms(method.at(0)).loss, cross_entropy(x), rtol=1e-5)


def test_one_step_methods_are_watched():
    usual = dict(soar_tf.methods.NFGSM().train_settings)
    assert usual == {"validation_attack": "pgd5", "stop_below": 0.5}
    assert usual == soar_tf.methods.Fast().train_settings == soar_tf.methods.QUB().train_settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": "nowhere"}, "`start`"),
        ({"start": "noise", "steps": 2}, "a single step and the linf norm"),
        ({"start": "noise", "norm": "l2"}, "a single step and the linf norm"),
    ],
)
def test_bad_starts(arguments, message):
    with pytest.raises(InputError, match=message):
        crafting.attack(0.1, **arguments)
