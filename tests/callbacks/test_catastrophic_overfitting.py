"""CatastrophicOverfitting: a scripted training that loses its robustness."""

import warnings

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.callbacks import CatastrophicOverfitting
from soar_tf.errors import InputError

ATTACK = "pgd5:epsilon=0.04"
KEY = "val_pgd5_epsilon_0_04_accuracy"


def _split(model):
    kernel, bias = model.get_weights()
    return float(bias[0] / kernel[0, 1] / 4)


def test_it_stops_and_restores_the_best_weights(linear_model, threshold_data, script):
    x, y = threshold_data
    model, guard = linear_model(), CatastrophicOverfitting((x, y), ATTACK)
    # Splits of 0.6, 0.5, 0.7 and 0.95 withstand the attack on 9, 10, 8 and 5 images.
    callbacks = [script([0.6, 0.5, 0.7, 0.95, 0.5]), guard]
    with pytest.warns(UserWarning, match=r"dropped from 0.800 to 0.500 in epoch 4; .* of epoch 2"):
        history = model.fit(x, y, epochs=5, verbose=0, callbacks=callbacks).history
    np.testing.assert_allclose(history[KEY], [0.9, 1.0, 0.8, 0.5])
    assert (guard.stopped_epoch, guard.best_epoch) == (3, 1)
    assert _split(model) == pytest.approx(0.5)


def test_small_falls_and_a_second_fit_do_not_stop_it(linear_model, threshold_data, script):
    x, y = threshold_data
    model, guard = linear_model(), CatastrophicOverfitting((x, y), ATTACK)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Catastrophic")
        # Falls of exactly the threshold, 1.0 to 0.8 to 0.6, are allowed.
        for splits in ([0.5, 0.7, 0.9], [1.5, 1.5]):
            model.fit(x, y, epochs=len(splits), verbose=0, callbacks=[script(splits), guard])
            assert guard.stopped_epoch is None
    assert guard.best_epoch == 1 and _split(model) == pytest.approx(1.5)


def test_it_restores_the_network_of_a_diverged_training(linear_model, threshold_data, script):
    x, y = threshold_data
    model, guard = linear_model(), CatastrophicOverfitting((x, y), ATTACK)
    with pytest.warns(UserWarning, match="to 0.000"):
        model.fit(x, y, epochs=3, verbose=0, callbacks=[script([0.5, np.nan, 0.5]), guard])
    assert _split(model) == pytest.approx(0.5)


def watching(data, values, **arguments):
    """A callback that has seen batches of these cosines."""
    guard = CatastrophicOverfitting(data, ATTACK, **arguments)
    for batch, value in enumerate(values):
        guard.on_train_batch_end(batch, {"loss": 1.0, "alignment": value})
    return guard


def test_it_warns_once_when_the_running_cosine_has_halved(threshold_data):
    # From 0.8 to 0: after n batches the running mean is 0.8 * 0.95^n, below 0.4 from n = 14 on.
    with pytest.warns(UserWarning, match=r"mean cosine of 0.39, down from 0.80\.") as seen:
        guard = watching(threshold_data, [0.8] * 5 + [0.0] * 40)
    assert guard.warned_batch == 5 + 14 - 1 and len(seen) == 1


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ([0.8] * 5 + [0.0] * 13, {}),
        ([0.8] * 5 + [0.45] * 100, {}),
        ([0.8, np.nan, np.inf] * 20, {}),
        ([0.8] * 5 + [0.0] * 40, {"alignment": None}),
        ([0.8] * 5 + [0.3] * 40, {"alignment": 0.3}),
    ],
)
def test_it_does_not_warn(threshold_data, values, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert watching(threshold_data, values, **arguments).warned_batch is None


def test_it_warns_of_gradients_that_are_opposite_from_the_start(threshold_data):
    with pytest.warns(UserWarning, match="mean cosine of -0.50, down from"):
        assert watching(threshold_data, [-0.5] * 3).warned_batch == 0


def test_a_robust_model_tells_it_the_cosine_and_other_models_do_not(threshold_data, linear_model):
    x, y = threshold_data
    guard = CatastrophicOverfitting((x, y), ATTACK)
    history = linear_model().fit(x, y, verbose=0, callbacks=[guard]).history
    assert "alignment" not in history
    model = soar_tf.RobustModel(linear_model(), "fast")
    model.compile(keras.optimizers.SGD(0.0))
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["alignment"]))

    fit = {"batch_size": 5, "epochs": 2, "verbose": 0}
    history = model.fit(x, y, callbacks=[guard, Spy()], **fit).history
    # Of two classes and a linear network all gradients have one direction or its opposite.
    np.testing.assert_allclose(seen, 1.0, atol=1e-5)
    assert len(seen) == 4 and history["alignment"] == pytest.approx([1.0, 1.0])
    assert guard.warned_batch is None and guard._batches == 4
    quiet = soar_tf.RobustModel(linear_model(), "fast")
    quiet.compile(keras.optimizers.SGD(0.0))
    unwatched = CatastrophicOverfitting((x, y), ATTACK, alignment=None)
    assert "alignment" not in quiet.fit(x, y, callbacks=[unwatched], **fit).history


@pytest.mark.parametrize("share", [0.0, 1.5, "half"])
def test_refuses_a_bad_share(threshold_data, share):
    with pytest.raises(InputError, match="`alignment` must be"):
        CatastrophicOverfitting(threshold_data, alignment=share)


@pytest.mark.parametrize("threshold", [0.0, 1.5, "much"])
def test_refuses_a_bad_threshold(threshold_data, threshold):
    with pytest.raises(InputError, match="`threshold` must be"):
        CatastrophicOverfitting(threshold_data, threshold=threshold)
