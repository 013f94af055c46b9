"""The probe on networks that everybody uses: none is refused."""

import keras
import numpy as np
import pytest

import soar_tf

# What is true of each with random weights: all their logits are nearly 0, and two of them scale
# pixels of [0, 255] by themselves.
SAID = {
    "MobileNetV2": {"tiny"},
    "MobileNetV3Small": {"tiny", "scale"},
    "EfficientNetB0": {"tiny", "scale"},
    "ConvNeXtTiny": {"tiny", "scale"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_networks_of_keras_applications_are_not_refused(name):
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None
    )
    x = np.random.default_rng(0).uniform(0, 1, (8, 32, 32, 3)).astype("float32")
    found = soar_tf.probe(network, x, np.arange(8))
    assert [finding.name for finding in found.findings if finding.unusable] == []
    assert set(found.names) <= SAID[name]


@pytest.mark.slow
def test_their_softmax_is_refused_and_taken_off():
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=10)
    x = np.random.default_rng(0).uniform(0, 1, (8, 32, 32, 3)).astype("float32")
    assert soar_tf.probe(network, x, np.arange(8)).names == ("probabilities",)
    logits = soar_tf.networks.to_logits(network)
    assert soar_tf.probe(logits, x, np.arange(8)).names in ((), ("tiny",))
