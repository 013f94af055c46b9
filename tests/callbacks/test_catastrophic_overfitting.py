"""CatastrophicOverfitting: a scripted training that loses its robustness."""

import warnings

import numpy as np
import pytest

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
    with pytest.warns(UserWarning, match=r"fell from 0.800 to 0.500 in epoch 4; .* of epoch 2"):
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


@pytest.mark.parametrize("threshold", [0.0, 1.5, "much"])
def test_refuses_a_bad_threshold(threshold_data, threshold):
    with pytest.raises(InputError, match="`threshold` must be"):
        CatastrophicOverfitting(threshold_data, threshold=threshold)
