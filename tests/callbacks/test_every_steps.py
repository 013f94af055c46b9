"""EverySteps: when it measures, what it writes, and that a resumed run has the same rows."""

import csv
import json

import keras
import numpy as np
import pytest

from soar_tf.callbacks import EverySteps, RobustAccuracy
from soar_tf.errors import InputError

ATTACK = "fgsm:epsilon=0.2"


def measured(data, steps, **options):
    return EverySteps(RobustAccuracy(data, ATTACK, name="fgsm"), steps, **options)


class Slide(keras.callbacks.Callback):
    """Moves the model's bias at each step, so that its accuracy is another one."""

    def __init__(self, start):
        super().__init__()
        self.count = start

    def on_train_batch_begin(self, batch, logs=None):
        self.count += 1
        kernel, _ = self.model.layers[-1].get_weights()
        bias = 4.0 + 0.36 * self.count
        self.model.layers[-1].set_weights([kernel, np.array([bias, -bias], "float32")])


def test_it_measures_after_every_third_step_and_each_epoch(linear_model, threshold_data, tmp_path):
    x, y = threshold_data
    every = measured(threshold_data, 3, path=tmp_path / "steps.csv")
    model = linear_model()
    history = model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[Slide(0), every])
    assert [(row["epoch"], row["step"]) for row in every.rows] == [(1, 3), (2, 6), (2, 9)]
    # The split moves up by 0.045 with each step. Those levels stay right that are on their class's
    # side of it by more than .2.
    levels = x[:, 0, 0, 0]
    for row in every.rows:
        split = 0.5 + 0.36 * row["step"] / 8
        right = ((levels > split) == y) & (abs(levels - split) > 0.2)
        assert row["val_fgsm_accuracy"] == pytest.approx(right.mean())
    assert len(history.history["val_fgsm_accuracy"]) == 2
    with open(tmp_path / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == every.rows


@pytest.mark.parametrize(("together", "expected"), [(1, [2, 4]), (2, [2, 4]), (4, [4])])
def test_steps_that_keras_takes_together_are_counted(
    linear_model, threshold_data, together, expected
):
    x, y = threshold_data
    every = measured(threshold_data, 2)
    model = linear_model(steps_per_execution=together)
    model.fit(x[:8], y[:8], batch_size=2, verbose=0, callbacks=[every])
    assert [row["step"] for row in every.rows] == expected


def test_it_goes_on_from_its_state(linear_model, threshold_data):
    x, y = threshold_data
    whole = measured(threshold_data, 3)
    linear_model().fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=[Slide(0), whole])
    first, second = measured(threshold_data, 3), measured(threshold_data, 3)
    linear_model().fit(x, y, batch_size=2, epochs=1, verbose=0, callbacks=[Slide(0), first])
    second.restore_state(json.loads(json.dumps(first.checkpoint_state())))
    linear_model().fit(
        x, y, batch_size=2, epochs=3, initial_epoch=1, verbose=0, callbacks=[Slide(5), second]
    )
    assert second.rows == whole.rows and len(whole.rows) == 5
    second.restore_state({"done": "x"})
    assert second.rows == whole.rows


def test_figures_that_are_repeated_between_epochs_survive_a_restart(linear_model, threshold_data):
    x, y = threshold_data
    first, second = (RobustAccuracy(threshold_data, ATTACK, every=3, name="a") for _ in range(2))
    linear_model().fit(x, y, epochs=2, verbose=0, callbacks=[first])
    second.restore_state(json.loads(json.dumps(first.checkpoint_state())))
    seen = []
    second.measure = lambda epoch: seen.append(epoch) or {"val_a_accuracy": 0.0}
    history = (
        linear_model().fit(x, y, epochs=5, initial_epoch=2, verbose=0, callbacks=[second]).history
    )
    assert seen == [3, 4]  # and not 2, the first of this fit
    assert history["val_a_accuracy"] == [first.checkpoint_state()["val_a_accuracy"], 0.0, 0.0]


def test_what_it_refuses(threshold_data):
    with pytest.raises(InputError, match="`callback` must be one of soar_tf.callbacks"):
        EverySteps(keras.callbacks.History(), 3)
    with pytest.raises(InputError, match="`steps` must be >= 1"):
        measured(threshold_data, 0)
