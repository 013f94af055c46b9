"""The containers, the digits, TFDS, and what `load` refuses."""

import hashlib
import importlib.resources
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from soar_tf import datasets
from soar_tf.datasets import tfds_source
from soar_tf.datasets.sampling import stratified
from soar_tf.errors import InputError

TFDS = pathlib.Path(__file__).parents[3] / "shared" / "tfds"
DIGITS_SHA256 = "07088eb9719c27a51596118a4308fd3a49b6afe08689a2f499cba3d8901d1f73"


def test_importing_loads_no_tensorflow():
    code = (
        "import sys, soar_tf.datasets as d; d.describe(); d.load('digits');"
        "print([m for m in ('tensorflow', 'keras', 'tensorflow_datasets') if m in sys.modules])"
    )
    # A stub package keeps soar_tf/__init__.py, which may load Keras, out of this test.
    stub = "import sys, types; p = types.ModuleType('soar_tf'); p.__path__ = ['soar_tf'];"
    stub += "sys.modules['soar_tf'] = p;"
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", stub + code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_digits_file_is_the_one_that_was_checked():
    data = (importlib.resources.files("soar_tf.datasets") / "digits.npz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == DIGITS_SHA256


def test_digits_splits_are_disjoint_stratified_and_complete():
    digits = datasets.load("digits")
    sizes = {name: len(split) for name, split in digits.splits.items()}
    assert sizes == {"train": 1197, "validation": 200, "test": 400}
    counts = {name: np.bincount(split.labels) for name, split in digits.splits.items()}
    assert (counts["test"] == 40).all()
    assert (counts["validation"] == 20).all()
    # The published class counts of the 1,797 images.
    published = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    np.testing.assert_array_equal(sum(counts.values()), published)
    images = np.concatenate([split.images for split in digits.splits.values()])
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797
    assert set(np.unique(images)) == {round(value * 255 / 16) for value in range(17)}
    assert (digits.image_shape, digits.num_classes, digits.augment) == ((8, 8, 1), 10, False)


def test_digits_split_follows_its_written_rule():
    with np.load(importlib.resources.files("soar_tf.datasets") / "digits.npz") as arrays:
        labels, split = arrays["labels"], arrays["split"]
    random, expected = np.random.RandomState(0), np.zeros(1797)
    for label in range(10):
        members = random.permutation(np.flatnonzero(labels == label))
        expected[members[:40]], expected[members[40:60]] = 2, 1
    np.testing.assert_array_equal(split, expected)


def test_only_the_wanted_splits_come():
    digits = datasets.load("digits", splits=("test",))
    assert list(digits.splits) == ["test"]
    with pytest.raises(InputError, match=r"'digits' has no split 'train' here. Available: test."):
        digits["train"]


def test_fingerprint_sees_pixels_labels_and_splits():
    digits = datasets.load("digits")
    split = digits["test"]
    print_ = digits.fingerprint()
    assert print_ == datasets.load("digits").fingerprint()
    images, labels = split.images.copy(), split.labels.copy()
    images[0, 0, 0, 0] ^= 1
    labels[0] = (labels[0] + 1) % 10
    variants = [
        digits.splits | {"test": datasets.Split(images, split.labels)},
        digits.splits | {"test": datasets.Split(split.images, labels)},
        {"train": digits["test"], "validation": digits["validation"], "test": digits["train"]},
    ]
    prints = {datasets.Dataset("x", 10, (8, 8, 1), v).fingerprint() for v in variants}
    assert len(prints | {print_}) == 4
    names = [datasets.Dataset("x", 10, (8, 8, 1), {n: split}) for n in ("train", "test")]
    assert names[0].fingerprint() != names[1].fingerprint()


def test_take_and_float_images():
    split = datasets.load("digits")["test"]
    assert len(split.take(7)) == 7
    assert len(split.take(10**6)) == 400
    pixels = split.float_images()
    assert (pixels.dtype, pixels.min(), pixels.max()) == (np.float32, 0, 1)


def test_image_size_resizes():
    digits = datasets.load("digits", splits="test", image_size=(16, 12))
    assert digits.image_shape == (16, 12, 1)
    assert digits["test"].images.shape == (400, 16, 12, 1)
    assert digits["test"].images.dtype == np.uint8
    before = datasets.load("digits", splits="test")["test"].images.mean()
    assert abs(digits["test"].images.mean() - before) < 2


def test_stratified_choice():
    labels = np.repeat([0, 1, 2, 3], [100, 50, 2, 1])
    chosen = stratified(labels, 0.1, 0)
    assert [chosen[labels == c].sum() for c in range(4)] == [10, 5, 1, 0]
    np.testing.assert_array_equal(chosen, stratified(labels, 0.1, 0))
    assert (chosen != stratified(labels, 0.1, 1)).any()


def test_a_number_of_validation_images():
    labels = np.repeat([0, 1, 2], [70, 20, 10])
    for total in (1, 9, 10, 99):
        chosen = stratified(labels, 0.1, 0, total)
        counts = np.array([chosen[labels == c].sum() for c in range(3)])
        assert counts.sum() == total
        assert np.abs(counts - total * np.array([0.7, 0.2, 0.1])).max() < 1


def test_validation_images_are_carved_out_of_all_training_images(tmp_path):
    x, y = np.zeros((50, 4, 4, 1), np.uint8), np.arange(50) % 5
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    name = f"npz:{tmp_path / 'set.npz'}"
    sizes = {
        count: {split: len(part) for split, part in loaded.splits.items()}
        for count in (0, 7)
        if (loaded := datasets.load(name, validation_images=count))
    }
    assert sizes == {
        0: {"train": 50, "test": 50},
        7: {"train": 43, "validation": 7, "test": 50},
    }
    with pytest.raises(InputError, match="must be fewer than the 50 training images"):
        datasets.load(name, validation_images=50)
    # A split of the source's own is left out, and never becomes smaller.
    assert "validation" not in datasets.load("digits", validation_images=0).splits
    with pytest.raises(InputError, match="'digits', which has a validation split. Received: 7"):
        datasets.load("digits", validation_images=7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "cifer10"}, "Unknown dataset 'cifer10'. Did you mean 'cifar10'"),
        ({"name": "npz:"}, "Unknown dataset 'npz:'"),
        ({"name": None}, "Unknown dataset None"),
        ({"name": "digits", "splits": ("tset",)}, "Unknown split 'tset'. Did you mean 'test'"),
        ({"name": "digits", "splits": ()}, "`splits` must name splits that data set 'digits' has"),
        ({"name": "digits", "validation_fraction": 1.0}, "`validation_fraction` must be < 1"),
        ({"name": "digits", "validation_fraction": -0.1}, "`validation_fraction` must be >= 0"),
        ({"name": "digits", "image_size": 8}, r"`image_size` must be \(height, width\). Rec"),
        ({"name": "digits", "image_size": (8, 0)}, "`image_size` must be >= 1. Received: 0"),
        ({"name": "digits", "seed": "x"}, "`seed` must be"),
        ({"name": "tfds:who:what"}, "`tfds:NAME` must be a set of TFDS's own catalogue"),
        ({"name": "tfds:no_such_set"}, "`tfds:NAME` must name a data set of TensorFlow Datasets"),
        ({"name": "tfds:imdb_reviews"}, "must be image classification.* Received: label, text"),
        ({"name": "tfds:cats_vs_dogs"}, r"`image_size` must be \(height, width\) for data set"),
    ],
)
def test_refusals(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        datasets.load(**arguments, data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (np.zeros((2, 4, 4)), np.arange(2), r"`images` must be .* \[N, H, W, C\]"),
        (np.zeros((2, 4, 4, 1)), np.arange(2), "must be uint8 or float32. Received: dtype float64"),
        (np.zeros((2, 4, 4, 1), "u1"), np.arange(3), r"`labels` must be integers of shape \[2\]"),
        (np.zeros((2, 4, 4, 1), "u1"), np.zeros(2), "Received: float64 of shape"),
    ],
)
def test_split_refusals(images, labels, message):
    with pytest.raises(InputError, match=message):
        datasets.Split(images, labels)


def test_labels_outside_the_classes_are_refused():
    split = datasets.Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 3]))
    with pytest.raises(InputError, match=r"must lie in 0..2. Received: 3 in split 'test'"):
        datasets.Dataset("x", 3, (4, 4, 1), {"test": split})


def test_names_are_described():
    assert set(datasets.NAMES) < set(datasets.describe())


def test_failed_download_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(tfds_source.MIRRORS, "mnist", "http://127.0.0.1:9/")
    folder = tmp_path / "sets"
    with pytest.raises(InputError, match=r"'mnist' is not in .*sets and could not be downloaded"):
        datasets.load("mnist", data_dir=folder)
    assert not folder.exists()


def test_broken_download_leaves_nothing(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def half(self, **_):
        partial = pathlib.Path(self.data_path).parent / "incomplete.X"
        partial.mkdir(parents=True)
        (partial / "records").write_text("half")
        raise ConnectionError("the line went dead")

    monkeypatch.setattr(tfds_source, "_probe", lambda *_: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", half)
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(InputError, match=r"the line went dead"):
        datasets.load("mnist", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"the line went dead"):
        datasets.load("mnist", data_dir=tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_complete_download_is_moved_into_place_and_read(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds_source, "_probe", lambda *_: None)
    calls = []

    def make(self, **_):
        calls.append(self.data_path)
        images = np.arange(6 * 784, dtype=np.uint8).reshape(6, 28, 28, 1)
        rows = [{"image": image, "label": i % 3} for i, image in enumerate(images)]
        os.makedirs(self.data_path)
        splits = {name: tfds.core.SequentialWriter(self.info, 100) for name in ("train", "test")}
        for name, writer in splits.items():
            writer.initialize_splits([name])
            writer.add_examples({name: rows})
            writer.close_all()

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", make)
    mnist = datasets.load("mnist", data_dir=tmp_path, validation_fraction=0.5)
    assert len(calls) == 1
    assert (mnist.num_classes, mnist.image_shape, mnist.augment) == (10, (28, 28, 1), False)
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]


@pytest.mark.skipif(not (TFDS / "cifar10").is_dir(), reason="needs ../shared/tfds")
def test_real_cifar10():
    cifar = datasets.load("cifar10", data_dir=TFDS, validation_fraction=0)
    assert {name: len(split) for name, split in cifar.splits.items()} == {
        "train": 50000,
        "test": 10000,
    }
    assert (np.bincount(cifar["train"].labels) == 5000).all()
    assert (np.bincount(cifar["test"].labels) == 1000).all()
    assert cifar["test"].images.shape == (10000, 32, 32, 3)
    assert cifar["test"].images.dtype == np.uint8
    assert cifar.class_names[:3] == ("airplane", "automobile", "bird")
    assert cifar.augment
    assert "the original pixels: ten test images have the hashes published" in cifar.provenance
    # Test image 0 of the official batch, as others published it.
    hashes = {hashlib.sha256(image.tobytes()).hexdigest() for image in cifar["test"].images}
    assert "af12e1241a1e7a0c9ba326825279bef5fe961ceb5f95212a99f9b1f22711f913" in hashes
    changed = cifar["test"].images.copy()
    changed[0, 0, 0, 0] ^= 1
    known = tfds_source.ORIGINAL_PIXELS["cifar10"]
    assert tfds_source._pixels(cifar["test"].images[::-1]) == known != tfds_source._pixels(changed)
    # The published channel means and standard deviations, to all printed digits.
    counts = np.stack(
        [np.bincount(cifar["train"].images[..., c].ravel(), minlength=256) for c in range(3)]
    )
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(axis=1)
    deviation = np.sqrt(counts @ levels**2 / counts.sum(axis=1) - mean**2)
    np.testing.assert_allclose(mean, [0.49139968, 0.48215841, 0.44653091], atol=1e-8)
    np.testing.assert_allclose(deviation, [0.24703223, 0.24348513, 0.26158784], atol=1e-8)
    carved = datasets.dataset.finish(cifar, ("train", "test"), ("validation",), 0.1, 0)
    assert (np.bincount(carved["validation"].labels) == 500).all()
