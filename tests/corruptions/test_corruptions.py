"""Corruptions against closed forms, by hand, and their noise."""

import colorsys
import math

import numpy as np
import pytest
import tensorflow as tf

from soar_tf import corruptions
from soar_tf.corruptions import filters
from soar_tf.corruptions.elastic import affine, sample
from soar_tf.errors import InputError
from soar_tf.ops import random

NAMES = sorted(corruptions.ALL_OBJECTS)
NOISY = ("gaussian-noise", "shot-noise", "impulse-noise", "speckle-noise", "elastic")


@pytest.fixture(scope="module")
def images():
    levels = np.random.default_rng(0).integers(0, 256, (6, 9, 12, 3))
    return (levels / 255).astype("float32")


def raw(name, x, severity, seed=0):
    """A corruption before it is clipped and rounded."""
    keys = random.example_keys(seed, tf.range(len(x)), step=severity, purpose=name)
    return corruptions.get(name)(tf.constant(x, tf.float32), severity, keys).numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_images_stay_images_and_do_not_depend_on_the_batch(name, severity, images):
    whole = corruptions.corrupt(name, images, severity, seed=3).numpy()
    assert whole.shape == images.shape and whole.min() >= 0 and whole.max() <= 1
    np.testing.assert_allclose(whole * 255, np.round(whole * 255), atol=1e-4)
    assert not np.array_equal(whole, images)
    for rows in ([4], [2, 5]):
        alone = corruptions.corrupt(name, images[rows], severity, seed=3, positions=rows).numpy()
        # A sum in another order may tip one pixel to the next of 256 levels.
        assert np.abs(alone - whole[rows]).max() <= 1.01 / 255
        assert np.mean(alone != whole[rows]) < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_noise_depends_on_seed_position_and_severity(name, images):
    same = np.repeat(images[:1], 2, axis=0)
    first = corruptions.corrupt(name, same, 2, seed=3).numpy()
    np.testing.assert_array_equal(first, corruptions.corrupt(name, same, 2, seed=3).numpy())
    other = corruptions.corrupt(name, same, 2, seed=4).numpy()
    assert (name in NOISY) == (not np.array_equal(first[0], first[1]))
    assert (name in NOISY) == (not np.array_equal(first, other))


def test_severities_change_more_and_more():
    ramp = np.linspace(0.2, 0.7, 32)
    x = np.stack([np.add.outer(ramp, ramp * k) / 2 for k in (0.2, 0.6, 1.0)], -1)[None]
    x = np.round(x.astype("float32") * 255) / 255
    for name in (
        "gaussian-noise",
        "shot-noise",
        "impulse-noise",
        "speckle-noise",
        "brightness",
        "contrast",
        "gaussian-blur",
    ):
        changes = [np.square(raw(name, x, severity) - x).mean() for severity in (1, 3, 5)]
        assert changes[0] < changes[1] < changes[2], name


@pytest.mark.parametrize(("severity", "added"), [(1, 0.05), (3, 0.15), (5, 0.3)])
def test_brightness_adds_to_the_value(severity, added, images):
    found = raw("brightness", images[:1], severity)[0]
    for pixel, bright in zip(images[0].reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel.astype(float))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))
        np.testing.assert_allclose(bright, expected, atol=1e-5)
    grey = np.full((1, 2, 2, 1), 0.9, "float32")
    np.testing.assert_allclose(raw("brightness", grey, severity), min(0.9 + added, 1), rtol=1e-6)


@pytest.mark.parametrize(("severity", "factor", "added"), [(1, 0.3, 0), (4, 2, 0.1), (5, 2.5, 0.2)])
def test_saturate_changes_the_saturation(severity, factor, added, images):
    found = raw("saturate", images[:1], severity)[0]
    for pixel, pale in zip(images[0].reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel.astype(float))
        expected = colorsys.hsv_to_rgb(hue, min(max(factor * saturation + added, 0), 1), value)
        np.testing.assert_allclose(pale, expected, atol=2e-5)


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.75), (2, 0.5), (5, 0.15)])
def test_contrast_shrinks_about_the_mean(severity, factor, images):
    mean = images.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(
        raw("contrast", images, severity), mean + factor * (images - mean), atol=1e-6
    )


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.04), (3, 0.08), (5, 0.10)])
def test_gaussian_and_speckle_noise_have_their_size(severity, sigma):
    x = np.full((4, 40, 40, 3), 0.5, "float32")
    noise = raw("gaussian-noise", x, severity) - x
    assert noise.std() == pytest.approx(sigma, rel=0.03) and abs(noise.mean()) < 0.05 * sigma
    speckle = raw("speckle-noise", x, severity) - x
    expected = 0.5 * {1: 0.06, 3: 0.12, 5: 0.2}[severity]
    assert speckle.std() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (3, 100), (5, 50)])
@pytest.mark.parametrize("level", [0, 20, 128, 255])
def test_shot_noise_is_poisson(severity, photons, level):
    x = np.full((4, 50, 50, 3), level / 255, "float32")
    counts = raw("shot-noise", x, severity) * photons
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    counts, mean = np.round(counts).ravel(), photons * level / 255
    error = math.sqrt(mean / counts.size) + 1e-12
    assert abs(counts.mean() - mean) <= 4 * error
    assert counts.var() == pytest.approx(mean, rel=0.05)
    # The share of each frequent count against its probability.
    for count in range(max(int(mean) - 2, 0), int(mean) + 3):
        chance = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) if mean else 1.0
        if mean or count == 0:
            spread = math.sqrt(chance * (1 - chance) / counts.size)
            assert abs(np.mean(counts == count) - chance) <= 5 * spread + 1e-9


@pytest.mark.parametrize(("severity", "share"), [(1, 0.01), (5, 0.07)])
def test_impulse_noise_sets_values_to_black_and_white(severity, share):
    x = np.full((4, 50, 50, 3), 0.5, "float32")
    found = raw("impulse-noise", x, severity)
    assert set(np.unique(found)) == {0.0, 0.5, 1.0}
    for value in (0.0, 1.0):
        assert np.mean(found == value) == pytest.approx(share / 2, rel=0.15)


def test_box_resizing_by_hand():
    # 4 pixels to 3: the new centres are at 2/3, 2 and 10/3, and each covers 4/3 pixels' width.
    np.testing.assert_array_equal(
        filters.box_matrix(4, 3), [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    )
    np.testing.assert_array_equal(filters.box_matrix(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_array_equal(filters.box_matrix(2, 4), [[1, 0], [1, 0], [0, 1], [0, 1]])


def test_pixelate_by_hand():
    # Severity 4 leaves 3 of 4 pixels; the middle two become their mean.
    row = np.array([0.0, 0.2, 0.6, 1.0], "float32")
    x = np.tile(row[None, None, :, None], (1, 4, 1, 1))
    np.testing.assert_allclose(raw("pixelate", x, 4)[0, 1, :, 0], [0, 0.4, 0.4, 1], atol=1e-6)
    np.testing.assert_allclose(
        raw("pixelate", x.transpose(0, 2, 1, 3), 4)[0, :, 2, 0], [0, 0.4, 0.4, 1], atol=1e-6
    )


def test_blurs_keep_constants_and_spread_a_point_by_their_kernel():
    constant, point = np.full((1, 15, 15, 3), 0.3, "float32"), np.zeros((1, 15, 15, 1), "float32")
    point[0, 7, 7, 0] = 1
    for severity in corruptions.SEVERITIES:
        for name in ("gaussian-blur", "defocus-blur"):
            np.testing.assert_allclose(raw(name, constant, severity), 0.3, rtol=1e-5)
            spread = raw(name, point, severity)[0, :, :, 0]
            assert spread.sum() == pytest.approx(1, rel=1e-5)
            np.testing.assert_allclose(spread, spread.T, atol=1e-7)
            np.testing.assert_allclose(spread, spread[::-1], atol=1e-7)
    sigma = 1.0
    taps = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
    taps /= taps.sum()
    found = raw("gaussian-blur", point, 5)[0, 3:12, 3:12, 0]
    np.testing.assert_allclose(found, np.outer(taps, taps), atol=1e-7)
    # A radius of 1 is a plus of 5 pixels; the smoothing of .2 pixels hardly counts.
    found = raw("defocus-blur", point, 4)[0, 6:9, 6:9, 0]
    np.testing.assert_allclose(found, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) / 5, atol=1e-4)


def test_gaussian_borders():
    nearest = filters.gaussian_matrix(5, 1.0, truncate=4, border="nearest")
    reflect = filters.gaussian_matrix(5, 1.0, truncate=3, border="reflect")
    np.testing.assert_allclose(nearest.sum(1), 1)
    np.testing.assert_allclose(reflect.sum(1), 1)
    weights = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    weights /= weights.sum()
    assert nearest[0, 0] == pytest.approx(weights[:5].sum())
    np.testing.assert_array_equal(
        filters.reflected(np.arange(-3, 6), 3), [2, 1, 0, 0, 1, 2, 2, 1, 0]
    )


def test_jpeg_is_that_of_the_quality(images):
    found = raw("jpeg", images, 3)
    image = np.round(images[2] * 255).astype("uint8")
    data = tf.io.encode_jpeg(image, quality=58)
    decoded = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE").numpy() / 255
    np.testing.assert_allclose(found[2], decoded, atol=1e-6)
    grey = raw("jpeg", images[..., :1], 5)
    assert grey.shape == (6, 9, 12, 1)


def test_elastic_without_shifts_changes_nothing_and_a_shift_moves(images):
    x = tf.constant(images)
    rows, columns = tf.meshgrid(tf.range(9.0), tf.range(12.0), indexing="ij")
    for shift, moved in (((0, 0), images[:, 4, 5]), ((1, 2), images[:, 2, 4])):
        shifts = tf.tile(tf.constant(shift, tf.float32)[None, None], [6, 3, 1])
        there = affine(shifts, rows, columns)
        found = sample(x, *there, pixel_twice=False).numpy()
        np.testing.assert_allclose(found[:, 4, 5], moved, atol=1e-5)


def test_samples_are_bilinear_and_mirrored():
    x = tf.constant(np.arange(4, dtype="float32").reshape(1, 1, 4, 1))
    columns = tf.constant([[[-1.0, 0.5, 3.0, 4.25]]])
    for pixel_twice, expected in ((False, [1, 0.5, 3, 1.75]), (True, [0, 0.5, 3, 2.75])):
        found = sample(x, tf.zeros_like(columns), columns, pixel_twice=pixel_twice)
        np.testing.assert_allclose(found[0, 0, :, 0], expected, atol=1e-6)


def test_bad_arguments_are_refused(images):
    with pytest.raises(InputError, match="Unknown corruption 'fog'"):
        corruptions.corrupt("fog", images, 1)
    with pytest.raises(InputError, match="`severity` must be 1 to 5. Received: 6"):
        corruptions.corrupt("jpeg", images, 6)
    with pytest.raises(InputError, match=r"images of shape \[H, W, 1\] or \[H, W, 3\]"):
        corruptions.corrupt("jpeg", images[..., :2], 1)
    assert "saturate" not in corruptions.names_for((8, 8, 1))
