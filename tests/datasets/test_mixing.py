"""mixup: shares, images and labels against closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from soar_tf import datasets
from soar_tf.datasets import mixing
from soar_tf.errors import InputError
from soar_tf.ops import random

COUNT = 4000


def keys():
    return random.example_keys(3, tf.range(COUNT), purpose="mixup test")


# The inverse of the distribution function of Beta(a, a), where it has one in closed form.
INVERSES = {
    0.5: lambda u: np.sin(np.pi * u / 2) ** 2,
    1.0: lambda u: u,
    # Of 3 x^2 - 2 x^3.
    2.0: lambda u: 0.5 - np.sin(np.arcsin(1 - 2 * u) / 3),
}


@pytest.mark.parametrize("a", INVERSES)
def test_shares_against_the_inverse_distribution_function(a):
    uniform = random.uniform(keys(), ()).numpy().astype("float64")
    got = random.symmetric_beta(keys(), a).numpy()
    np.testing.assert_allclose(got, INVERSES[a](uniform), atol=1e-6)


@pytest.mark.parametrize("a", [0.01, 0.2, 1.0, 50.0])
def test_mean_and_variance_of_the_shares(a):
    shares = random.symmetric_beta(keys(), a).numpy().astype("float64")
    variance = 1 / (4 * (2 * a + 1))
    assert abs(shares.mean() - 0.5) < 5 * np.sqrt(variance / COUNT)
    np.testing.assert_allclose(shares.var(), variance, rtol=0.1)
    assert shares.min() >= 0 and shares.max() <= 1


def test_a_share_belongs_to_the_example_and_the_epoch():
    together = mixing.draw_shares(5, 2, tf.range(10, dtype=tf.int64), 0.3).numpy()
    assert mixing.draw_shares(5, 2, tf.constant([7], tf.int64), 0.3).numpy()[0] == together[7]
    assert (mixing.draw_shares(5, 3, tf.range(10, dtype=tf.int64), 0.3).numpy() != together).any()
    assert (mixing.draw_shares(6, 2, tf.range(10, dtype=tf.int64), 0.3).numpy() != together).any()


def test_mixed_with_the_neighbour_by_hand():
    images = np.random.default_rng(0).uniform(0, 1, (4, 3, 2, 1)).astype("float32")
    shares = np.array([1.0, 0.25, 0.5, 0.0], "float32")
    x, y = mixing.mix(
        tf.constant(images), tf.constant([2, 0, 0, 1], tf.int64), tf.constant(shares), 3
    )
    own = shares[:, None, None, None]
    before = images[[3, 0, 1, 2]]
    np.testing.assert_allclose(x, own * images + (1 - own) * before, atol=1e-6)
    np.testing.assert_allclose(y, [[0, 0, 1], [0.25, 0, 0.75], [1, 0, 0], [1, 0, 0]], atol=1e-7)


def test_pixels_stay_in_their_range_and_rows_sum_to_one():
    images = tf.ones([COUNT, 1, 1, 1])
    x, y = mixing.mix(
        images, tf.range(COUNT, dtype=tf.int64) % 10, random.symmetric_beta(keys(), 0.4), 10
    )
    np.testing.assert_array_equal(x, images)
    assert float(tf.reduce_min(y)) >= 0
    np.testing.assert_allclose(tf.reduce_sum(y, axis=1), 1.0, atol=1e-6)


def test_images_and_labels_are_mixed_by_the_same_shares():
    # Image i is white at pixel i only, and its label is i: both say the same shares.
    images = np.zeros((12, 3, 4, 1), np.uint8)
    for i in range(12):
        images[i].flat[i] = 255
    split = datasets.Split(images, np.arange(12))
    pipeline, _ = datasets.training_pipeline(split, 6, seed=1, epochs=2, mixup=1.0, num_classes=12)
    seen = []
    for x, y in pipeline:
        assert x.dtype == y.dtype == tf.float32 and y.shape == (6, 12)
        np.testing.assert_allclose(tf.reshape(x, [6, 12]), y, atol=1e-6)
        seen.extend(np.count_nonzero(y, axis=1))
    assert set(seen) == {2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixup": 0}, "`mixup` must be > 0"),
        ({"mixup": -1}, "`mixup` must be > 0"),
        ({"mixup": 101}, "`mixup` must be .*<= 100"),
        ({"mixup": "much"}, "`mixup` must be a finite number"),
        ({"mixup": 0.2, "num_classes": None}, "`num_classes` must be"),
    ],
)
def test_bad_arguments(arguments, message):
    split = datasets.load("digits")["train"].take(8)
    with pytest.raises(InputError, match=message):
        datasets.training_pipeline(split, 4, seed=0, epochs=1, **{"num_classes": 10, **arguments})
