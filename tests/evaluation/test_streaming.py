"""Evaluations of images that are read batch by batch equal those of arrays, bit for bit."""

import numpy as np
import pytest

import soar_tf
from soar_tf import datasets, evaluation
from soar_tf.datasets import images as images_module
from soar_tf.datasets import split as split_module
from soar_tf.datasets.images import FloatImages
from soar_tf.evaluation import robustness
from soar_tf.reports import examples


class Watched(datasets.Images):
    """Images of an array that refuse to be read more than `limit` at once."""

    def __init__(self, images, limit=None):
        super().__init__(images.shape, images.dtype)
        self.array, self.limit, self.largest = images, limit, 0

    def read(self, indices):
        self.largest = max(self.largest, len(indices))
        assert self.limit is None or len(indices) <= self.limit, f"{len(indices)} at once"
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


LIMIT = 32


@pytest.fixture
def strict(monkeypatch):
    """130 digits that are never held, and never read more than 32 at once."""
    monkeypatch.setattr(images_module, "CHUNK", LIMIT)
    monkeypatch.setattr(split_module, "MEMORY_BYTES", 0)
    split = datasets.load("digits")["train"]
    rows = np.arange(130)
    return datasets.Split(Watched(split.images[rows], LIMIT), split.labels[rows])


def test_no_measurement_asks_for_more_images_than_a_batch(strict, network, tmp_path):
    x, y = strict.pixels(), strict.labels
    assert isinstance(x, FloatImages)
    options = {"batch_size": LIMIT}
    attacks = ["fgsm:epsilon=0.1"]
    whole = soar_tf.evaluate(network, strict, attacks=attacks, keep=200, **options)
    assert whole.n == 130 and len(whole.kept) > LIMIT
    for shard in ("1/2", "2/2"):
        soar_tf.evaluate(network, x, y, attacks, shard=shard, **options)
    file = {"state": tmp_path / "s", **options}
    evaluation.accuracy_curve(network, x, y, "fgsm", [0.1], shard="1/2", **file)
    evaluation.minimum_norms(network, x, y, "fmn:steps=2", **options)
    evaluation.transfer_matrix({"a": network}, {"a": network}, x, y, "fgsm", **options)
    evaluation.masking_report(network, x, y, epsilon=0.1, steps=2, queries=3, **options)
    evaluation.corruption_accuracies(network, x, y, ["contrast"], **options)
    evaluation.attack_indicators(network, x, y, "pgd2:epsilon=0.1", **options)
    assert strict.source.largest == LIMIT


def test_nothing_of_many_logits_is_kept(strict):
    """A network of many classes: the logits of all images are never there at once."""

    def predict(images):
        seen.append(len(images))
        logits = np.zeros((len(images), 50), np.float32)
        logits[np.arange(len(images)), (images.sum(axis=(1, 2, 3)) * 7).astype(int) % 50] = 3
        return logits

    seen, x, y = [], strict.pixels(), strict.labels
    found = robustness.answers(predict, x, y, LIMIT)
    assert max(seen) <= LIMIT
    logits = np.concatenate([predict(x[start : start + 1]) for start in range(len(x))])
    np.testing.assert_array_equal(found.prediction, logits.argmax(axis=1))
    np.testing.assert_array_equal(found.correct, logits.argmax(axis=1) == y)
    exact = np.log(np.exp(logits.astype(float)).sum(axis=1)) - logits[np.arange(len(y)), y]
    np.testing.assert_allclose(found.loss, exact, rtol=1e-6)
    np.testing.assert_array_equal(found.first, logits[:256])
    assert found.span == 3.0


def test_adversarial_images_are_written_part_by_part(strict, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "PART_BYTES", LIMIT * 8 * 8 * 4)
    asked = []

    def read(rows):
        asked.append(len(rows))
        return strict.pixels()[rows]

    positions = np.arange(0, 130, 2)
    images = examples.Images(positions, (8, 8, 1), read)
    examples.write_npz(tmp_path / "a.npz", {"index": positions, "x": images})
    assert asked == [32, 32, 1]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["index"], positions)
        np.testing.assert_array_equal(stored["x"], strict.float_images()[positions])
        assert stored["x"].dtype == np.float32
    nothing = examples.Images(positions[:0], (8, 8, 1), read)
    examples.write_npz(tmp_path / "b.npz", {"x": nothing})
    with np.load(tmp_path / "b.npz") as stored:
        assert stored["x"].shape == (0, 8, 8, 1)


def test_callbacks_take_a_sample_of_a_split():
    from soar_tf.evaluation.data import arrays

    labels = np.repeat(np.arange(4), 25)
    split = datasets.Split(np.zeros((100, 2, 2, 1), np.uint8), labels)
    x, y = arrays(split, 20)
    assert len(x) == 20
    assert (np.bincount(y) == 5).all()
