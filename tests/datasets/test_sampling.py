"""`take`: which examples, for which sources."""

import numpy as np
import pytest

from soar_tf import datasets
from soar_tf.datasets.sampling import sample


@pytest.mark.parametrize("sizes", [[40, 40, 40, 40], [70, 20, 10], [5, 1, 1000], [1] * 50])
def test_samples_have_the_shares_of_the_classes_and_are_nested(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    total, last = len(labels), set()
    for count in range(0, total + 1, max(1, total // 40)):
        rows = sample(labels, count)
        assert len(set(rows.tolist())) == count
        assert (np.diff(rows) > 0).all()
        assert last <= set(rows.tolist())
        last = set(rows.tolist())
        shares = np.bincount(labels[rows], minlength=len(sizes))
        # Ranks are spread evenly: each class is within one of its share, all of them by rounding.
        assert np.abs(shares - count * np.array(sizes) / total).max() <= 1 + len(sizes) / 2


def test_balanced_classes_get_their_first_before_any_gets_a_second():
    labels = np.repeat(np.arange(100), 7)
    few = labels[sample(labels, 10)]
    assert len(set(few)) == 10
    assert few.max() > 30, "the first classes only"
    assert (np.bincount(labels[sample(labels, 250)]) >= 2).all()


def test_a_sorted_set_is_sampled_and_says_so():
    labels = np.repeat(np.arange(4), 25)
    images = np.repeat(labels, 4).reshape(100, 2, 2, 1).astype(np.uint8)
    split = datasets.Split(images, labels)
    taken = split.take(20)
    assert (np.bincount(taken.labels) == 5).all()
    assert taken.selection == "20 of 100, sampled by class"
    np.testing.assert_array_equal(taken.images[:, 0, 0, 0], taken.labels)
    np.testing.assert_array_equal(split.take(20).images, taken.images)
    assert split.take(100).selection is None
    # The choice is by label alone: other images, or where they are, do not matter.
    lazy = datasets.from_sequence(list(zip(images, labels.tolist(), strict=True)))
    np.testing.assert_array_equal(lazy.take(20).images, taken.images)


def test_sets_in_random_order_keep_their_first_images(cifar10_folder):
    digits = datasets.load("digits")["test"]
    assert digits.shuffled
    np.testing.assert_array_equal(digits.take(9).images, digits.images[:9])
    assert digits.take(9).selection == "9 of 400, the first in an order that is random"
    cifar = datasets.load("cifar10", data_dir=cifar10_folder)
    assert all(split.shuffled for split in cifar.splits.values())
    np.testing.assert_array_equal(cifar["test"].take(5).images, cifar["test"].images[:5])
