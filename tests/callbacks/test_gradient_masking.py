"""GradientMasking: closed forms, a warning for each sign, silence for an honest network."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf.callbacks import GradientMasking
from soar_tf.errors import InputError


def test_figures_are_the_closed_forms_and_an_honest_network_raises_no_warning(
    linear_model, threshold_data
):
    x, y = threshold_data
    masking = GradientMasking((x, y), epsilon=0.2, steps=5)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Gradient masking")
        history = linear_model().fit(x, y, epochs=2, verbose=0, callbacks=[masking]).history
    # The label's logit leads by 16 |mean - 0.5|; the gradient is 8 (1 - p) in l2 norm.
    p = 1 / (1 + np.exp(-16 * np.abs(x[:, 0, 0, 0].astype("float64") - 0.5)))
    np.testing.assert_allclose(history["val_top_probability"], p.mean(), rtol=1e-5)
    np.testing.assert_allclose(history["val_gradient_norm"], (8 * (1 - p)).mean(), rtol=1e-4)
    assert history["val_zero_gradients"] == history["val_fgsm_gap"] == [0.0, 0.0]


def test_a_saturated_network_is_reported_once_a_fit(linear_model, threshold_data):
    x, y = threshold_data
    model, masking = linear_model(slope=4000.0), GradientMasking((x, y), epsilon=0.2, steps=5)
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = model.fit(x, y, epochs=3, verbose=0, callbacks=[masking]).history
        texts = [str(w.message) for w in caught if "Gradient masking" in str(w.message)]
        assert len(texts) == 2
        assert "100.0% of the input gradients are zero" in texts[0]
        assert "mean top probability is 1.0000 and PGD leaves 100.0%" in texts[1]
        assert history["val_zero_gradients"] == [1.0] * 3


@keras.saving.register_keras_serializable(package="soar_tf_tests")
class Landscape(keras.layers.Layer):
    """Logits 0 and m(t), with t the mean pixel minus 0.5."""

    def __init__(self, margin):
        super().__init__()
        self.margin = margin

    def call(self, inputs):
        t = tf.reduce_mean(inputs, axis=(1, 2, 3)) - 0.5
        return tf.stack([0.0 * t, self.margin(t)], axis=1)


def _only_a_valley(t):
    # Misclassified around |t| = 0.1 only: the one long step of 0.2 jumps over it.
    return 0.5 + tf.cos(2 * np.pi * t / 0.2)


def _ripples_before_a_cliff(t):
    # Short steps are caught in the ripples; the long step falls off the cliff at |t| = 0.17.
    return 1 + 0.5 * tf.cos(2 * np.pi * t / 0.08) - 100 * tf.nn.relu(tf.abs(t) - 0.17)


@pytest.mark.parametrize(
    ("margin", "sentence", "sign"),
    [
        (_only_a_valley, "FGSM leaves .* more examples than PGD", 1),
        (_ripples_before_a_cliff, "FGSM breaks .* more examples than PGD", -1),
    ],
)
def test_one_step_against_many(margin, sentence, sign):
    levels = 0.5 + np.linspace(0.002, 0.01, 10, dtype="float32")
    x, y = np.broadcast_to(levels[:, None, None, None], (10, 2, 2, 1)), np.ones(10, int)
    model = keras.Sequential([keras.Input((2, 2, 1)), Landscape(margin)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    masking = GradientMasking((x, y), epsilon=0.2)
    with pytest.warns(UserWarning, match=sentence):
        history = model.fit(x, y, verbose=0, callbacks=[masking]).history
    assert history["val_fgsm_gap"][0] * sign > 0.4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"epsilon": 8}, "`epsilon` must be"),
        ({"steps": 0}, "`steps` must be >= 1"),
        ({"max_gap": 2}, "`max_gap` must be"),
        ({"tolerance": -1}, "`tolerance` must be"),
        ({"max_confidence": "high"}, "`max_confidence` must be"),
    ],
)
def test_refuses_bad_arguments(threshold_data, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        GradientMasking(threshold_data, **arguments)
