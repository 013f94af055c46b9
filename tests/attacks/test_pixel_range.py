"""A radius is an absolute distance between images whose pixels are in the attack's `bounds`."""

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.threat_model import ThreatModel


@pytest.fixture(scope="module")
def linear():
    """Two logits, w x and 0, of four pixels."""
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    network.layers[0].kernel.assign([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [0.5, 0.0]])
    return network


@pytest.mark.parametrize("attack", ["fgsm", "pgd20", "mifgsm", "apgd", "square"])
def test_a_scaled_range_gives_the_scaled_attack(linear, attack):
    x = np.array([[0.5, 0.4, 0.5, 0.5], [0.9, 0.05, 0.6, 0.2]], np.float32)
    y = np.array([0, 0])
    unit = get_attack(attack, epsilon=0.25)(linear, x, y)
    rescaled = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(1 / 255), linear])
    pixels = get_attack(attack, epsilon=0.25 * 255, bounds=(0, 255))(rescaled, x * 255, y)
    np.testing.assert_allclose(pixels / 255, unit, atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "least"),
    [
        ({"epsilon": 0.15, "bounds": (0, 255)}, 0.249),
        ({"epsilon": 8 / 255, "bounds": (0, 65535)}, 64),
        ({"epsilon": 0.5, "norm": "l2", "bounds": (0, 255)}, 2.55),
        ({"epsilon": "8/65025"}, 0.000977),
        ({"bounds": (0, 255)}, 0.249),  # the default is for pixels in [0, 1]
    ],
)
def test_a_radius_for_another_range_is_refused(arguments, least):
    with pytest.raises(InputError, match=rf"`epsilon` must be 0 or at least {least}"):
        soar_tf.attacks.PGD(**arguments)


def test_the_largest_radius_is_the_range():
    assert soar_tf.attacks.PGD(epsilon=1.5, bounds=(-1, 1)).epsilon == 1.5
    with pytest.raises(InputError, match=r"<= 2"):
        soar_tf.attacks.PGD(epsilon=2.5, bounds=(-1, 1))


@pytest.mark.parametrize("bounds", [(1, 0), (0, 0), (0, float("nan")), 3, (0, 1, 2), None])
def test_bounds_that_are_none(bounds):
    with pytest.raises(InputError, match="`bounds`"):
        soar_tf.attacks.PGD(bounds=bounds)
    with pytest.raises(InputError, match="`bounds`"):
        ThreatModel(bounds=bounds)


def test_pixels_outside_the_bounds_are_refused(linear):
    x = np.full((1, 4), 128.0, np.float32)
    with pytest.raises(InputError, match=r"`x` must hold pixels in \[0, 1\]"):
        soar_tf.attacks.FGSM(epsilon=0.1)(linear, x, np.array([0]))
    with pytest.raises(InputError, match=r"`x` must hold pixels in \[-1, 1\]"):
        soar_tf.attacks.FGSM(epsilon=0.1, bounds=(-1, 1))(linear, x * np.nan, np.array([0]))


def test_evaluations_refuse_another_range(linear):
    x, y = np.full((2, 4), 0.5, np.float32), np.array([0, 0])
    attack = soar_tf.attacks.PGD(epsilon=38, bounds=(0, 255))
    for measure in (
        lambda: soar_tf.evaluate(linear, x, y, [attack]),
        lambda: soar_tf.evaluation.accuracy_curve(linear, x, y, attack),
        lambda: soar_tf.evaluation.attack_indicators(linear, x, y, attack),
        lambda: soar_tf.evaluation.transfer_matrix({"a": linear}, {"b": linear}, x, y, attack),
    ):
        with pytest.raises(InputError, match=r"must have `bounds` \(0, 1\)"):
            measure()


def test_a_threat_model_says_its_range():
    assert str(ThreatModel("linf", 8, (0, 255))) == "Linf 8, pixels in [0, 255]"
    assert str(ThreatModel("linf", 8 / 255)) == "Linf 8/255"
