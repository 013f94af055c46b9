"""TransferAccuracy: closed form on linear models, every kind of source, refusals."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.callbacks import TransferAccuracy
from soar_tf.errors import InputError

ATTACK = "pgd20:epsilon=0.2"
KEY = "val_transfer_accuracy"


def test_it_is_the_closed_form(linear_model, threshold_data, script):
    x, y = threshold_data
    # Every image's mean moves by 0.2 away from its label, whether the source is fooled or not.
    moved = np.clip(x[:, 0, 0, 0] + np.where(y == 1, -0.2, 0.2), 0, 1)
    splits = [0.5, 0.1, 0.9, 0.5]
    transfer = TransferAccuracy(linear_model(split=0.45), (x, y), ATTACK)
    model = linear_model()
    history = model.fit(x, y, epochs=4, verbose=0, callbacks=[script(splits), transfer]).history
    expected = [((moved > split) == y).mean() for split in splits]
    assert history[KEY] == expected and len(set(expected)) > 1
    np.testing.assert_allclose(transfer.x_adv[:, 0, 0, 0], moved, atol=1e-6)


def test_every_kind_of_source(linear_model, threshold_data, tmp_path, capsys):
    x, y = threshold_data
    source, target = linear_model(split=0.45), linear_model(split=0.55)
    soar_tf.export(source, tmp_path / "saved_model")
    source.save(tmp_path / "source.keras")
    kernel, bias = (tf.constant(w) for w in source.get_weights())
    sources = {
        "saved_model": str(tmp_path / "saved_model"),
        "keras": tmp_path / "source.keras",
        "model": source,
        "robust": soar_tf.RobustModel(source, "standard"),
        "callable": lambda x: tf.reshape(x, [-1, 4]) @ kernel + bias,
    }
    callbacks = [
        TransferAccuracy(source, (x, y), ATTACK, name=name) for name, source in sources.items()
    ]
    history = target.fit(x, y, verbose=0, callbacks=callbacks).history
    figures = [history[f"val_{name}_accuracy"] for name in sources]
    assert figures == [figures[0]] * 5 and 0 < figures[0][0] < 1


def test_examples_are_crafted_once(linear_model, threshold_data, traces):
    source, model = linear_model(), linear_model()
    transfer = TransferAccuracy(source, threshold_data, ATTACK)
    model.fit(*threshold_data, verbose=0, callbacks=[transfer])
    crafted, before = transfer.x_adv, traces()
    source.set_weights([-w for w in source.get_weights()])
    history = model.fit(*threshold_data, epochs=2, verbose=0, callbacks=[transfer]).history
    assert transfer.x_adv is crafted and traces() == before and len(history[KEY]) == 2


def test_an_attack_that_only_searches(linear_model, threshold_data):
    x, y = threshold_data
    transfer = TransferAccuracy(linear_model(), (x, y), "square:epsilon=0.2,queries=50")
    history = linear_model().fit(x, y, verbose=0, callbacks=[transfer]).history
    assert history[KEY][0] == pytest.approx(0.6)


def test_refuses_bad_sources(linear_model, threshold_data, tmp_path):
    x, y = threshold_data
    (tmp_path / "broken.keras").write_text("no model")
    softmax = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    )
    larger = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    for source, sentence in [
        (tmp_path / "nowhere", "`source` .* does not exist"),
        (tmp_path, "`source` must be a SavedModel folder, a .keras, .tflite or .onnx file"),
        (tmp_path / "broken.keras", "`source` .* cannot be read as a Keras model"),
        (7, "`source` must be a keras.Model, a function"),
        (softmax, "`source` must give logits, .* is a softmax"),
        (lambda x: tf.nn.softmax(tf.reshape(x, [-1, 4])), "outputs are probabilities"),
        (larger, "`data` must have images of shape"),
    ]:
        with pytest.raises(InputError, match=sentence):
            TransferAccuracy(source, (x, y))
    with pytest.raises(InputError, match="labels from 0 to 1"):
        TransferAccuracy(linear_model(), (x, y + 1))
