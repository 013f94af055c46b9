"""Evaluations of images that are read batch by batch equal those of arrays, bit for bit."""

import numpy as np
import pytest

import soar_tf
from soar_tf import datasets, evaluation
from soar_tf.datasets.images import FloatImages


class Watched(datasets.Images):
    """The digits, with the largest number of images that were read at once."""

    def __init__(self, images):
        super().__init__(images.shape)
        self.array, self.largest = images, 0

    def read(self, indices):
        self.largest = max(self.largest, len(indices))
        return self.array[np.asarray(indices)]


@pytest.fixture(scope="module")
def data():
    split = datasets.load("digits")["test"].take(70)
    watched = Watched(split.images)
    return split.float_images(), FloatImages(watched), split.labels, watched


@pytest.fixture(scope="module")
def network():
    import keras

    keras.utils.set_random_seed(0)
    train = datasets.load("digits")["train"]
    model = soar_tf.RobustModel(soar_tf.networks.mlp(width=0.25), "standard")
    model.compile("adam")
    model.fit(train.float_images(), train.labels, epochs=5, verbose=0)
    return model.network


def test_evaluate_and_its_state(data, network, tmp_path):
    x, streamed, y, _ = data
    attacks = ["fgsm:epsilon=0.1", "pgd3:epsilon=0.1"]
    options = {"batch_size": 16, "uint8": True}
    array = soar_tf.evaluate(network, x, y, attacks, state=tmp_path / "one", **options)
    stream = soar_tf.evaluate(network, streamed, y, attacks, state=tmp_path / "two", **options)
    assert stream.to_dict()["worst_case_accuracy"] == array.to_dict()["worst_case_accuracy"]
    for name in ("linf", "l2", "adversarial_prediction"):
        np.testing.assert_array_equal(getattr(stream.examples, name), getattr(array.examples, name))
    # The state of one is the other's: their images have one fingerprint.
    state = evaluation.State(tmp_path / "one")
    soar_tf.evaluate(network, streamed, y, attacks, state=state, **options)
    assert state.resumed
    assert not state.advanced


def test_curve_transfer_masking_and_distances(data, network):
    x, streamed, y, _ = data
    options = {"batch_size": 16}
    pairs = [
        (
            evaluation.accuracy_curve(network, images, y, "fgsm", [0.1, 0.2], **options).accuracy,
            evaluation.minimum_norms(network, images, y, "fmn:steps=5", **options).distances,
            evaluation.transfer_matrix(
                {"a": network}, {"a": network}, images, y, "fgsm", **options
            ).accuracy,
            evaluation.masking_report(network, images, y, epsilon=0.1, **options).to_dict(),
        )
        for images in (x, streamed)
    ]
    for array, stream in zip(*pairs, strict=True):
        np.testing.assert_equal(stream, array)


def test_no_more_than_a_chunk_is_read_at_once(network):
    split = datasets.load("digits")["train"]
    watched = Watched(split.images)
    lazy = datasets.Split(watched, split.labels)
    images = lazy.pixels(0)
    assert isinstance(images, FloatImages)
    soar_tf.evaluate(network, images, split.labels, ["fgsm:epsilon=0.1"], batch_size=100)
    assert watched.largest == 100
    assert isinstance(lazy.pixels(), np.ndarray)


def test_callbacks_take_a_sample_of_a_split():
    from soar_tf.evaluation.data import arrays

    labels = np.repeat(np.arange(4), 25)
    split = datasets.Split(np.zeros((100, 2, 2, 1), np.uint8), labels)
    x, y = arrays(split, 20)
    assert len(x) == 20
    assert (np.bincount(y) == 5).all()
