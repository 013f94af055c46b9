"""AdversarialExamples: the files, what they hold, and the picture."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf import attacks
from soar_tf.callbacks import AdversarialExamples
from soar_tf.callbacks.adversarial_examples import grid
from soar_tf.errors import InputError


def test_files_are_written_for_each_epoch(linear_model, threshold_data, tmp_path):
    x, y = threshold_data
    model, folder = linear_model(), tmp_path / "deep" / "examples"
    callback = AdversarialExamples(x, y, "fgsm:epsilon=0.2", folder, every=2, batch_size=4)
    history = model.fit(x, y, epochs=4, verbose=0, callbacks=[callback]).history
    assert set(history) == {"loss"}
    epochs = ["epoch-00001", "epoch-00003", "epoch-00004"]
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{name}.{kind}" for name in epochs for kind in ("npz", "png")
    ]
    saved = np.load(folder / "epoch-00003.npz")
    np.testing.assert_array_equal(saved["x"], x)
    np.testing.assert_array_equal(saved["labels"], y)
    expected = attacks.get("fgsm:epsilon=0.2")(model, x, y).numpy()
    np.testing.assert_array_equal(saved["x_adv"], expected)
    broken = np.abs(x[:, 0, 0, 0] - 0.5) < 0.2
    np.testing.assert_array_equal(saved["predictions"], np.where(broken, 1 - y, y))
    np.testing.assert_array_equal(saved["clean_predictions"], y)
    picture = tf.io.decode_png(tf.io.read_file(str(folder / "epoch-00003.png"))).numpy()
    np.testing.assert_array_equal(picture, grid(x, expected))


def test_the_attack_is_compiled_once(linear_model, threshold_data, traces, tmp_path):
    model = linear_model()
    callback = AdversarialExamples(*threshold_data, "pgd3", tmp_path)
    model.fit(*threshold_data, verbose=0, callbacks=[callback])
    before = traces()
    model.fit(*threshold_data, epochs=3, verbose=0, callbacks=[callback])
    assert traces() == before > 0


def test_the_picture_has_clean_adversarial_and_magnified_rows():
    x = np.full((2, 48, 60, 3), 0.4, "float32")
    x_adv = x.copy()
    x_adv[0] += 0.1
    x_adv[1] -= 0.05
    picture = grid(x, x_adv)
    assert picture.shape == (3 * 50, 2 * 62, 3) and picture.dtype == np.uint8
    centers = picture[25::50, 31::62, 0]
    np.testing.assert_array_equal(centers, [[102, 102], [128, 89], [255, 64]])
    assert (grid(x, x)[-25, 31] == 128).all()  # nothing changed: grey
    assert grid(x[:, :8, :6], x[:, :8, :6]).shape == (3 * 66, 2 * 50, 3)


def test_images_that_are_no_pictures_are_saved_without_one(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.full((3, 4), 0.5, "float32"), np.zeros(3, int)
    model.fit(x, y, verbose=0, callbacks=[AdversarialExamples(x, y, "fgsm", tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-00001.npz"]


def test_refuses_bad_arguments(threshold_data, tmp_path):
    x, y = threshold_data
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"`folder` .* cannot be created"):
        AdversarialExamples(x, y, "fgsm", tmp_path / "file" / "below")
    with pytest.raises(InputError, match="one label per image"):
        AdversarialExamples(x, y[:3], "fgsm", tmp_path)
    with pytest.raises(InputError, match="Unknown attack"):
        AdversarialExamples(x, y, "fgsn", tmp_path)
