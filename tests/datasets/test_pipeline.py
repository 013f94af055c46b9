"""Order, resumption and augmentation of the pipelines."""

import numpy as np
import pytest

from soar_tf import datasets
from soar_tf.datasets import augmentation, pipeline
from soar_tf.errors import InputError


def numbered(count, side=4):
    """A split whose image i holds i in its first pixel, and whose label is i."""
    images = np.zeros((count, side, side, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return datasets.Split(images, np.arange(count))


def batches(split, batch_size=16, **options):
    dataset, steps = datasets.training_pipeline(split, batch_size, **options)
    return [(x.numpy(), y.numpy()) for x, y in dataset], steps


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b)
        for p, q in zip(first, second, strict=True)
        for a, b in zip(p, q, strict=True)
    )


MIXED = {"mixup": 0.4, "num_classes": 10}
AUGMENTATIONS = [
    *({}, {"augment": True}, {"cutout": 3}, {"augment": True, "cutout": 2}),
    *(MIXED, {"augment": True, "cutout": 2, **MIXED}),
]


@pytest.mark.parametrize("options", AUGMENTATIONS)
def test_resuming_yields_the_bits_of_the_uninterrupted_run(options):
    split = datasets.load("digits")["train"].take(100)
    whole, steps = batches(split, seed=3, epochs=4, **options)
    assert (len(whole), steps) == (4 * 6, 6)
    assert same(whole, batches(split, seed=3, epochs=4, **options)[0])
    resumed, _ = batches(split, seed=3, epochs=4, initial_epoch=2, **options)
    assert same(whole[2 * steps :], resumed)
    for step in (1, steps - 1):
        where = {"initial_epoch": 2, "initial_step": step}
        resumed, _ = batches(split, seed=3, epochs=4, **where, **options)
        assert same(whole[2 * steps + step :], resumed)


def test_a_step_that_an_epoch_does_not_have_is_refused():
    split = numbered(50)
    with pytest.raises(InputError, match="smaller than the 3 steps of an epoch. Received: 3"):
        datasets.training_pipeline(split, 16, seed=0, epochs=1, initial_step=3)
    with pytest.raises(InputError, match="`epochs` must be >= 2"):
        datasets.training_pipeline(split, 16, seed=0, epochs=1, initial_epoch=1, initial_step=1)


@pytest.mark.parametrize("options", AUGMENTATIONS)
def test_epochs_and_seeds_differ(options):
    split = datasets.load("digits")["train"].take(64)
    whole, steps = batches(split, seed=3, epochs=2, **options)
    assert not same(whole[:steps], whole[steps:])
    assert not same(whole, batches(split, seed=4, epochs=2, **options)[0])
    assert not same(whole, batches(split, seed=3 + 2**40, epochs=2, **options)[0])


def test_each_epoch_visits_every_example_once_but_for_the_remainder():
    whole, steps = batches(numbered(50), seed=0, epochs=6)
    assert steps == 3
    dropped = []
    for epoch in range(6):
        labels = np.concatenate([y for _, y in whole[epoch * steps : (epoch + 1) * steps]])
        assert len(set(labels)) == len(labels) == 48
        dropped.append(frozenset(range(50)) - set(labels))
    assert len(set(dropped)) > 1, "the same examples are never trained on"


def test_images_stay_with_their_labels():
    for x, y in batches(numbered(50), seed=0, epochs=1)[0]:
        np.testing.assert_array_equal(np.rint(x[:, 0, 0, 0] * 255), y)


def test_orders_are_uniform():
    # Each of the 3! orders: binomial(1200, 1/6), standard deviation 12.9; allowed: 5 of them.
    orders = [tuple(pipeline.epoch_order(3, 1, epoch).numpy()) for epoch in range(1200)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 6
    assert max(abs(count - 200) for count in counts) < 65


def test_small_split_gives_one_full_batch():
    whole, steps = batches(numbered(5), batch_size=32, seed=0, epochs=2)
    assert steps == 1
    assert [len(y) for _, y in whole] == [5, 5]


def test_types_and_shapes_are_static():
    dataset, steps = datasets.training_pipeline(numbered(40), 16, seed=0, epochs=3)
    x, y = dataset.element_spec
    assert (x.shape, x.dtype.name, y.shape, y.dtype.name) == (
        (16, 4, 4, 1),
        "float32",
        (16,),
        "int64",
    )
    assert int(dataset.cardinality()) == 3 * steps


def test_pixels_equal_the_numpy_path_bit_for_bit():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    split = datasets.Split(images, np.arange(4))
    (x, _), *_ = datasets.evaluation_pipeline(split, 4)
    np.testing.assert_array_equal(x.numpy(), split.float_images())
    assert x.numpy().min() == 0
    assert x.numpy().max() == 1


def test_float_images_are_not_rescaled():
    images = np.linspace(0, 1, 32, dtype=np.float32).reshape(2, 4, 4, 1)
    (x, _), *_ = datasets.evaluation_pipeline(datasets.Split(images, np.arange(2)), 2)
    np.testing.assert_array_equal(x.numpy(), images)


def test_evaluation_keeps_order_and_the_last_partial_batch():
    labels = [y.numpy() for _, y in datasets.evaluation_pipeline(numbered(10), 4)]
    assert [len(y) for y in labels] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(labels), np.arange(10))


@pytest.mark.parametrize("side, pad", [(32, 4), (28, 3), (8, 1), (4, 1), (64, 4)])
def test_padding(side, pad):
    assert augmentation.padding(side) == pad


def test_crop_is_a_translate_of_the_padded_image_then_mirrored():
    # A ramp: every pixel differs, height and width differ, so no axis can be mistaken.
    ramp = 1 + np.arange(10 * 16 * 2, dtype=np.int32).reshape(1, 10, 16, 2)
    cases = [(r, c, f) for r in range(3) for c in range(5) for f in (False, True)]
    rows, columns, flips = (np.array(part) for part in zip(*cases, strict=True))
    got = augmentation.augment_batch(
        np_to_tf(np.repeat(ramp, len(cases), 0)),
        np_to_tf(rows.astype(np.int32)),
        np_to_tf(columns.astype(np.int32)),
        np_to_tf(flips),
    ).numpy()
    padded = np.pad(ramp[0], [(1, 1), (2, 2), (0, 0)])
    for image, (r, c, flip) in zip(got, cases, strict=True):
        expected = padded[r : r + 10, c : c + 16]
        np.testing.assert_array_equal(image, expected[:, ::-1] if flip else expected)


def np_to_tf(array):
    import tensorflow as tf

    return tf.constant(array)


def test_draws_cover_all_offsets_and_flip_half():
    draws = augmentation.draw_augmentation(5, 2, np_to_tf(np.arange(9000)), (32, 16))
    rows, columns, flip = (part.numpy() for part in draws)
    # Counts are binomial(9000, 1/9) and (9000, 1/5): standard deviations 29.8 and 38; 5 of them.
    np.testing.assert_allclose(np.bincount(rows, minlength=9), 1000, atol=150)
    np.testing.assert_allclose(np.bincount(columns, minlength=5), 1800, atol=190)
    assert (rows.max(), columns.max()) == (8, 4)
    assert abs(flip.mean() - 0.5) < 5 * 0.5 / np.sqrt(9000)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.06
    assert abs(np.corrcoef(rows, flip)[0, 1]) < 0.06


def test_draws_belong_to_the_example_not_to_the_batch():
    together = augmentation.draw_augmentation(5, 2, np_to_tf(np.arange(10)), (32, 32))
    alone = augmentation.draw_augmentation(5, 2, np_to_tf(np.array([7])), (32, 32))
    for many, one in zip(together, alone, strict=True):
        assert many.numpy()[7] == one.numpy()[0]
    other = augmentation.draw_augmentation(5, 3, np_to_tf(np.arange(10)), (32, 32))
    assert (together[0].numpy() != other[0].numpy()).any()


def test_augmented_batch_holds_shifted_originals():
    split = datasets.Split(np.full((64, 8, 8, 1), 255, np.uint8), np.arange(64))
    (x, _), *_ = batches(split, 64, seed=0, epochs=1, augment=True)[0]
    # A white image keeps its zero border exactly where the crop left it: 64, 56 or 49 pixels.
    assert set(x.sum((1, 2, 3))) == {64.0, 56.0, 49.0}


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_cutout_is_a_square_about_its_centre_cut_by_the_border(side):
    ramp = np.linspace(0, 1, 6 * 9 * 2, dtype=np.float32).reshape(1, 6, 9, 2)
    places = np.array(list(np.ndindex(6, 9)), np.int32)
    images = np.repeat(ramp, len(places), 0)
    got = augmentation.cut_out(
        np_to_tf(images), np_to_tf(places[:, 0]), np_to_tf(places[:, 1]), side
    ).numpy()
    for image, (row, column) in zip(got, places, strict=True):
        expected = ramp[0].copy()
        top, left = row - side // 2, column - side // 2
        expected[max(top, 0) : top + side, max(left, 0) : left + side] = 0.5
        np.testing.assert_array_equal(image, expected)


def test_cutout_draws_every_pixel_and_belongs_to_the_example():
    rows, columns = augmentation.draw_cutout(5, 2, np_to_tf(np.arange(8000)), (8, 5))
    # Counts are binomial(8000, 1/8) and (8000, 1/5): standard deviations 29.6 and 35.8; 5 of them.
    np.testing.assert_allclose(np.bincount(rows, minlength=8), 1000, atol=148)
    np.testing.assert_allclose(np.bincount(columns, minlength=5), 1600, atol=179)
    assert (int(np.max(rows)), int(np.max(columns))) == (7, 4)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.06
    alone = augmentation.draw_cutout(5, 2, np_to_tf(np.array([7])), (8, 5))
    assert (int(rows[7]), int(columns[7])) == (int(alone[0][0]), int(alone[1][0]))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_cutout_covers_a_square_of_a_cropped_image(kind):
    white = np.full((64, 8, 8, 1), 255 if kind is np.uint8 else 1.0, kind)
    split = datasets.Split(white, np.arange(64))
    (x, _), *_ = batches(split, 64, seed=0, epochs=1, augment=True, cutout=3)[0]
    grey = (x == 0.5).sum((1, 2, 3))
    assert set(grey) == {4, 6, 9}  # in a corner, at a side, inside
    assert x.min() == 0 and x.max() == 1
    (plain, _), *_ = batches(split, 64, seed=0, epochs=1, augment=True)[0]
    np.testing.assert_array_equal(np.where(x == 0.5, plain, x), plain)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "`batch_size` must be >= 1. Received: 0"),
        ({"seed": -1}, "`seed` must be >= 0. Received: -1"),
        ({"seed": 1.5}, "`seed` must be an integer. Received: 1.5"),
        ({"epochs": 1, "initial_epoch": 2}, "`epochs` must be >= 2. Received: 1"),
        ({"cutout": 0}, "`cutout` must be >= 1. Received: 0"),
        ({"cutout": 5}, "`cutout` must be at most 4 pixels for images of 4x4. Received: 5"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"batch_size": 4, "seed": 0, "epochs": 1} | options
    with pytest.raises(InputError, match=message):
        datasets.training_pipeline(numbered(8), **arguments)


def test_empty_split():
    with pytest.raises(InputError, match=r"`split` must hold at least one example"):
        datasets.evaluation_pipeline(numbered(8).take(0), 4)
