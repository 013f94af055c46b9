"""RobustAccuracy: closed forms, keys that Keras's callbacks see, one compilation."""

import csv
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import attacks
from soar_tf.callbacks import CurvatureMonitor, RobustAccuracy
from soar_tf.errors import InputError

ATTACK = "pgd5:epsilon=0.2"
KEY = "val_pgd5_epsilon_0_2_accuracy"


def test_it_follows_the_closed_form_and_evaluate(linear_model, threshold_data, script):
    x, y = threshold_data
    model, splits = linear_model(), [0.5, 0.3, 0.5, 0.9]
    history = model.fit(
        x, y, epochs=4, verbose=0, callbacks=[script(splits), RobustAccuracy((x, y), ATTACK)]
    )
    mean = x[:, 0, 0, 0]
    expected = [(((mean > split) == y) & (np.abs(mean - split) > 0.2)).mean() for split in splits]
    assert history.history[KEY] == expected and len(set(expected)) == 2
    assert soar_tf.evaluate(model, x, y, [ATTACK]).attacks[0].robust_accuracy == expected[-1]


def test_it_equals_evaluate_on_a_network_with_batchnorm_and_dropout(images):
    x, y = images
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    model = soar_tf.RobustModel(network, "standard")
    model.compile(keras.optimizers.SGD(0.5))
    robust = RobustAccuracy((x, y), "pgd3:epsilon=0.05", seed=4)
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[robust]).history
    expected = soar_tf.evaluate(network, x, y, ["pgd3:epsilon=0.05"], seed=4)
    assert history["val_pgd3_epsilon_0_05_accuracy"][-1] == expected.worst_case_accuracy
    assert robust.network is network


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}, {"run_eagerly": True}])
def test_training_is_not_disturbed(images, options):
    """Weights, BatchNorm statistics and dropout masks are those of a fit without it."""
    x, y = images
    weights = []
    for callbacks in ([], [RobustAccuracy(images, "pgd3")]):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((2, 2, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(4),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(3),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, **options)
        model.fit(x, y, epochs=2, batch_size=4, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
    for without, with_it in zip(*weights, strict=True):
        np.testing.assert_array_equal(without, with_it)


def test_the_attack_is_compiled_once(linear_model, threshold_data, traces):
    x, y = threshold_data
    model, robust = linear_model(), RobustAccuracy((x, y), ATTACK)
    counts = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: counts.append(traces()))
    for _ in range(2):  # a second fit does not compile it again either
        model.fit(x, y, epochs=3, verbose=0, callbacks=[robust, count])
    assert counts[0] > 0 and counts == [counts[0]] * 6


def test_many_callbacks_raise_no_warning_of_retracing(linear_model, threshold_data):
    model, messages = linear_model(), []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("tensorflow").addHandler(handler)
    try:
        callbacks = [RobustAccuracy(threshold_data, "fgsm") for _ in range(6)]
        callbacks += [CurvatureMonitor(threshold_data, num_directions=1) for _ in range(6)]
        model.fit(*threshold_data, verbose=0, callbacks=callbacks)
    finally:
        logging.getLogger("tensorflow").removeHandler(handler)
    assert not [message for message in messages if "retracing" in message]


def test_keras_callbacks_see_it(linear_model, threshold_data, script, tmp_path):
    x, y = threshold_data
    model = linear_model()
    stop = keras.callbacks.EarlyStopping(KEY, mode="max", patience=2, restore_best_weights=True)
    history = model.fit(
        x,
        y,
        epochs=9,
        verbose=0,
        callbacks=[
            script([0.9, 0.5, 0.7, 0.9]),
            RobustAccuracy((x, y), ATTACK),
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.ModelCheckpoint(
                str(tmp_path / "best.keras"), monitor=KEY, mode="max", save_best_only=True
            ),
            stop,
        ],
    ).history
    assert len(history[KEY]) == 4 and stop.best_epoch == 1
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row[KEY]) for row in rows] == history[KEY]
    best = keras.saving.load_model(tmp_path / "best.keras")
    for loaded, restored in zip(best.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, restored)


def test_tensorboard_sees_it(linear_model, threshold_data, tmp_path):
    x, y = threshold_data
    board = keras.callbacks.TensorBoard(str(tmp_path))
    linear_model().fit(x, y, verbose=0, callbacks=[RobustAccuracy((x, y), ATTACK), board])
    events = next((tmp_path / "validation").glob("events*"))
    iterator = tf.compat.v1.train.summary_iterator(str(events))
    tags = {value.tag for event in iterator for value in event.summary.value}
    assert f"epoch_{KEY.removeprefix('val_')}" in tags


def test_epochs_between_repeat_the_last_figure(linear_model, threshold_data, script):
    x, y = threshold_data
    model = linear_model()
    robust = RobustAccuracy((x, y), ATTACK, every=3)
    measured = []
    original = robust.measure
    robust.measure = lambda epoch: measured.append(epoch) or original(epoch)
    splits = [0.5, 0.6, 0.7, 0.9, 0.5, 0.7]
    figures = model.fit(x, y, epochs=6, verbose=0, callbacks=[script(splits), robust]).history[KEY]
    assert measured == [0, 3, 5]
    assert figures[:3] == [figures[0]] * 3 and figures[4] == figures[3] != figures[0]


def test_the_data_may_come_in_many_forms(threshold_data):
    x, y = threshold_data
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    split = soar_tf.datasets.Split(x, y)
    forms = [(x, y), batches, (x, y[:, None]), (x, np.eye(2)[y]), (tf.constant(x), y)]
    for data in forms:
        robust = RobustAccuracy(data, limit=7)
        np.testing.assert_array_equal(robust.x, x[:7])
        np.testing.assert_array_equal(robust.y, y[:7])
    # A split's sample has every class in it.
    robust = RobustAccuracy(split, limit=7)
    np.testing.assert_array_equal(robust.x, split.take(7).float_images())
    np.testing.assert_array_equal(robust.y, split.take(7).labels)
    assert len(RobustAccuracy(batches.repeat(), limit=11).x) == 11
    assert len(RobustAccuracy(batches, limit=None).x) == 10


def test_names(threshold_data):
    assert RobustAccuracy(threshold_data).key == "val_pgd20_accuracy"
    assert RobustAccuracy(threshold_data, "apgd-ce").key == "val_apgd-ce_accuracy"
    assert RobustAccuracy(threshold_data, attacks.PGD(steps=3)).key == "val_pgd_accuracy"
    assert RobustAccuracy(threshold_data, name="aa").key == "val_aa_accuracy"


def test_a_network_that_diverged_scores_nothing(linear_model, threshold_data):
    x, y = threshold_data
    model = linear_model(learning_rate=float("nan"))
    history = model.fit(x, y, verbose=0, callbacks=[RobustAccuracy((x, y), ATTACK)]).history
    assert history[KEY] == [0.0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"data": 3}, "`data` must be arrays"),
        ({"data": (np.zeros((2, 2, 2, 1)), np.zeros(3, int))}, "one label per image"),
        ({"data": (np.full((2, 2, 2, 1), 255), np.zeros(2, int))}, r"pixels in \[0, 1\]"),
        ({"attack": "pdg20"}, "Did you mean 'pgd20'"),
        ({"every": 0}, "`every` must be >= 1"),
        ({"limit": 0}, "`limit` must be >= 1"),
        ({"seed": -1}, "`seed` must be >= 0"),
        ({"batch_size": 0}, "`batch_size` must be >= 1"),
    ],
)
def test_refuses_bad_arguments(threshold_data, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        RobustAccuracy(**{"data": threshold_data, **arguments})


def test_refuses_bad_datasets(threshold_data):
    x, y = threshold_data
    single = tf.data.Dataset.from_tensor_slices((x, y))
    for data, sentence in [
        (single, "call .batch on it"),
        (single.batch(2).repeat(), "repeats without end"),
        (single.batch(2).take(0), "at least one batch"),
        (single.batch(2).map(lambda x, y: x), "batches"),
    ]:
        with pytest.raises(InputError, match=sentence):
            RobustAccuracy(data, limit=None)


def test_refuses_data_and_models_that_do_not_fit_before_training(linear_model, threshold_data):
    x, y = threshold_data
    model = linear_model()
    wrong = [
        (RobustAccuracy((np.zeros((3, 4, 4, 1)), y[:3])), "images of shape"),
        (RobustAccuracy((x, y + 1)), "labels from 0 to 1"),
        (RobustAccuracy((x, y * 1.0)), "integer labels"),
    ]
    for callback, sentence in wrong:
        with pytest.raises(InputError, match=sentence):
            model.fit(x, y, verbose=0, callbacks=[callback])
    model.add(keras.layers.Softmax())
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(InputError, match="is a softmax"):
        model.fit(x, y, verbose=0, callbacks=[RobustAccuracy((x, y))])


def test_a_users_model_with_a_part_called_network_is_measured_as_a_whole(images):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten = keras.layers.Flatten()
            self.network = keras.Sequential([keras.layers.Dense(3)])

        def call(self, inputs, training=None):
            return self.network(self.flatten(inputs))

    model, robust = Own(), RobustAccuracy(images, "fgsm")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*images, verbose=0, callbacks=[robust])
    assert robust.network is model
