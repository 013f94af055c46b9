"""Rotation, translation and noise against NumPy, and the worst of several draws."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import attacks
from soar_tf.attacks import GaussianNoise, Spatial, transforms
from soar_tf.errors import InputError
from soar_tf.ops import random

RNG = np.random.default_rng(7)
IMAGES = RNG.uniform(size=(3, 5, 5, 2)).astype("float32")
BOX = (0.0, 1.0)


def move(x, degrees=0.0, down=0.0, right=0.0):
    n = len(x)
    angle = tf.fill([n], math.radians(degrees))
    shifts = tf.fill([n], float(down)), tf.fill([n], float(right))
    return transforms.rotate_and_shift(tf.constant(x), angle, *shifts, BOX).numpy()


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_quarter_turns(quarter):
    expected = np.rot90(IMAGES, -quarter, axes=(1, 2))  # clockwise
    np.testing.assert_allclose(move(IMAGES, 90.0 * quarter), expected, atol=1e-5)


def test_half_a_turn_of_an_oblong_image():
    oblong = IMAGES[:, :, :3]
    np.testing.assert_allclose(move(oblong, 180.0), oblong[:, ::-1, ::-1], atol=1e-5)


def test_whole_pixels_shift_and_the_rest_is_black():
    found = move(IMAGES, down=1 / 5, right=-2 / 5)
    expected = np.zeros_like(IMAGES)
    expected[:, 1:, :3] = IMAGES[:, :-1, 2:]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_half_a_pixel_is_interpolated():
    found = move(IMAGES, right=0.5 / 5)
    before = np.concatenate([np.zeros_like(IMAGES[:, :, :1]), IMAGES[:, :, :-1]], axis=2)
    np.testing.assert_allclose(found, 0.5 * (before + IMAGES), atol=1e-5)


def test_the_rotation_comes_before_the_shift():
    found = move(IMAGES, 90.0, down=1 / 5)
    turned = np.rot90(IMAGES, -1, axes=(1, 2))
    np.testing.assert_allclose(found[:, 1:], turned[:, :-1], atol=1e-5)
    np.testing.assert_allclose(found[:, 0], 0.0, atol=1e-5)


def test_images_without_a_channel_axis():
    found = move(IMAGES[..., 0], 90.0)
    np.testing.assert_allclose(found, np.rot90(IMAGES[..., 0], -1, axes=(1, 2)), atol=1e-5)


def test_each_example_has_its_own_angle():
    angles = tf.constant([0.0, math.pi / 2, math.pi])
    found = transforms.rotate_and_shift(tf.constant(IMAGES), angles, tf.zeros(3), tf.zeros(3), BOX)
    for quarter in range(3):
        expected = np.rot90(IMAGES[quarter], -quarter)
        np.testing.assert_allclose(found[quarter], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("strength", "degrees", "share"), [("weak", 10, 0.05), ("medium", 30, 0.1), ("strong", 50, 0.3)]
)
def test_strengths(monkeypatch, strength, degrees, share):
    drawn = []

    def spy(x, *numbers):
        drawn.extend(numbers[:3])
        return x

    monkeypatch.setattr(transforms, "rotate_and_shift", spy)
    keys = random.example_keys(0, tf.range(2000))
    Spatial(strength).transform(tf.zeros([2000, 2, 2, 1]), keys)
    for values, limit in zip(drawn, (math.radians(degrees), share, share), strict=True):
        values = values.numpy()
        assert np.abs(values).max() <= limit and np.abs(values).max() > 0.99 * limit
        assert abs(values.mean()) < 5 * limit / math.sqrt(3 * 2000)


def test_vectors_are_refused():
    with pytest.raises(InputError, match=r"need images \[B, H, W, C\]"):
        Spatial()(lambda x: x, np.full((1, 3), 0.5), np.zeros(1, int))


@pytest.mark.parametrize("sigma", [0.05, 0.15])
def test_noise_has_the_standard_deviation(sigma):
    x = np.full((200, 6, 6, 1), 0.5, np.float32)
    keys = random.example_keys(0, tf.range(200))
    noise = GaussianNoise(sigma).transform(tf.constant(x), keys).numpy() - 0.5
    assert abs(noise.std() - sigma) < 5 * sigma / math.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 5 * sigma / math.sqrt(noise.size)


def test_noise_is_clipped_to_the_box():
    found = (
        GaussianNoise(0.15)
        .transform(tf.zeros([50, 4]), random.example_keys(0, tf.range(50)))
        .numpy()
    )
    assert found.min() == 0.0 and 0.3 < np.mean(found == 0.0) < 0.7


def by_mean(x):
    """Class 1 if the mean is above .5."""
    other = 10.0 * (tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], -1]), axis=1) - 0.5)
    return tf.stack([tf.zeros_like(other), other], axis=1)


def test_the_worst_of_several_draws():
    x = np.clip(RNG.normal(0.49, 0.02, size=(40, 3, 3, 1)), 0, 1).astype("float32")
    y = np.argmax(by_mean(x), axis=1)
    x, y = x[y == 0], y[y == 0]
    keys = random.example_keys(4, tf.range(len(x)), purpose="attack")
    attack = GaussianNoise(0.03, samples=4)
    found = attack(by_mean, x, y, seed=4).numpy()
    draws = np.stack([attack.transform(tf.constant(x), random.derive(keys, k)) for k in range(4)])
    margins = np.stack([by_mean(draw)[:, 1] for draw in draws])
    for i in range(len(x)):
        wrong = np.flatnonzero(margins[:, i] > 0)
        expected = wrong[0] if len(wrong) else margins[:, i].argmax()
        np.testing.assert_allclose(found[i], draws[expected, i], atol=1e-6)
    broken = (margins > 0).any(axis=0)
    assert broken.any() and not broken.all()
    # In training all draws are made, and the one of largest loss is kept.
    worst = attack.perturb(by_mean, tf.constant(x), tf.constant(y), keys).numpy()
    expected = draws[margins.argmax(axis=0), np.arange(len(x))]
    np.testing.assert_allclose(worst, expected, atol=1e-6)


def test_one_draw_is_the_first_of_several():
    y = np.zeros(3, int)

    def never_wrong(x):
        return tf.tile(tf.constant([[1.0, 0.0]]), [tf.shape(x)[0], 1])

    one = Spatial("strong")(never_wrong, IMAGES, y)
    keys = random.example_keys(0, tf.range(3), purpose="attack")
    first = Spatial("strong").transform(tf.constant(IMAGES), random.derive(keys, 0))
    np.testing.assert_allclose(one, first, atol=1e-6)


def test_evaluation_reports_no_norm():
    x = np.full((4, 3, 3, 1), 0.48, np.float32)
    result = soar_tf.evaluate(
        by_mean,
        x,
        np.zeros(4, int),
        ["gaussian-noise:sigma=0.15,samples=20", "spatial"],
        adaptive=False,
    )
    noise, spatial = result.to_dict()["attacks"]
    assert noise["norm"] is None and noise["epsilon"] is None and json.dumps(noise)
    assert noise["robust_accuracy"] == 0.0 and spatial["robust_accuracy"] == 1.0


def test_arguments():
    assert attacks.get("gaussian-noise:sigma=0.05", epsilon=0.1).sigma == 0.05
    assert attacks.get("spatial:strength=strong,samples=10").samples == 10
    for bad, message in {
        "spatial:strength=stron": "Unknown `strength` 'stron'. Did you mean 'strong'?",
        "gaussian-noise:sigma=-1": "`sigma` must be >= 0",
        "spatial:epsilon=0.1": "Unknown argument of attack 'spatial': 'epsilon'",
        "gaussian-noise:samples=0": "`samples` must be >= 1",
    }.items():
        with pytest.raises(InputError) as error:
            attacks.get(bad)
        assert str(error.value).startswith(message)
