"""What `evaluate` is given by mistake: one message each, never a traceback from within."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError

ODD_IMAGES = {
    "text": "abc",
    "a number": 0.5,
    "a row": np.zeros(12),
    "ragged": [[1], [1, 2]],
    "complex": np.zeros((12, 2, 2, 1), "c8"),
    "objects": np.array([None] * 12),
    "words": np.array([["a"]] * 12),
    "a generator": (image for image in range(3)),
    "a data set": tf.data.Dataset.range(3),
    "nothing": {},
}


@pytest.mark.parametrize("kind", ODD_IMAGES)
def test_images_that_are_none(kind, smooth_network, images):
    with pytest.raises(InputError, match=r"`x` must be an array of real numbers, \[N, ...\]"):
        soar_tf.evaluate(smooth_network, ODD_IMAGES[kind], images[1], "fgsm")


@pytest.mark.parametrize("attacks", [None, 3, soar_tf.attacks.PGD, True, object()])
def test_attacks_that_are_none(attacks, smooth_network, images):
    with pytest.raises(InputError, match="`attacks` must be attacks or names"):
        soar_tf.evaluate(smooth_network, *images, attacks)


def test_names_of_attacks_are_text(smooth_network, images):
    with pytest.raises(InputError, match="names that are text. Received: 3"):
        soar_tf.evaluate(smooth_network, *images, {3: "fgsm"})


def test_one_name_is_one_attack(smooth_network, images):
    result = soar_tf.evaluate(smooth_network, *images, "fgsm")
    assert [attack.name for attack in result.attacks] == ["fgsm"]


@pytest.mark.parametrize("network", [None, 3, [1], tf.keras.Model, {}])
def test_networks_that_are_none(network, images):
    with pytest.raises(InputError, match="`network` must be a keras.Model, a function"):
        soar_tf.evaluate(network, *images, "fgsm")


def test_a_network_that_computes_in_numpy(smooth_network, images):
    for network in (smooth_network.predict, lambda x: np.ones((len(x), 3))):
        with pytest.raises(InputError, match="compute with TensorFlow .*a NumPy array"):
            soar_tf.evaluate(network, *images, "fgsm")


def test_other_arguments_that_are_none(smooth_network, images):
    for name in ("progress", "state", "source"):
        with pytest.raises(InputError, match=f"`{name}` must be .*Received: 3"):
            soar_tf.evaluate(smooth_network, *images, "fgsm", **{name: 3})


def test_a_generator_of_batches(smooth_network, images):
    with pytest.raises(InputError, match="`data` must be .*Received: generator"):
        soar_tf.evaluate(smooth_network, (batch for batch in [images]), attacks="fgsm")
