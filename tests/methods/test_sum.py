"""Combinations of methods."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import SIDE, keys, recording_network, terms, x, y

import soar_tf
from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.ops import random


def test_terms_are_the_weighted_mean_of_losses_and_the_sum_of_weighted_penalties():
    members = [methods.Fast(0.1), methods.Jacobian(0.5), methods.GradientNorm(0.1, 3.0)]
    got = terms(methods.Sum(members, weights=[3, 1, 0]))
    own = [terms(m, own_keys=random.derive(keys(), i)) for i, m in enumerate(members)]
    np.testing.assert_allclose(got.loss, (3 * own[0].loss + own[1].loss) / 4, rtol=1e-5)
    penalty = 0.5 * own[1].penalty + 3.0 * own[2].penalty
    np.testing.assert_allclose(got.penalty, penalty, rtol=1e-5)
    np.testing.assert_allclose(got.logits, own[0].logits, rtol=1e-5)
    assert got.penalty_weight == 1.0


def test_of_methods_without_penalty():
    combined = methods.Sum(["standard", "fast"])
    assert not combined.has_penalty and not combined.second_order
    assert terms(combined).penalty is None


def test_takes_the_members_properties():
    combined = methods.Sum("adversarial + soar")
    assert combined.second_order and combined.starts_from_standard
    assert combined.penalty_clipnorm == 30.0
    assert methods.Sum("adversarial+jacobian").penalty_clipnorm is None


def test_config_is_plain_and_restores_every_member():
    combined = methods.Sum(
        [methods.SOAR(0.1, num_directions=2), "fast", {"method": "trades", "beta": "3"}],
        weights="1+0+2",
        epsilon="4/255",
    )
    config = json.loads(json.dumps(combined.get_config()))
    restored = methods.get("sum", **config)
    assert restored.get_config() == combined.get_config()
    assert [type(m).__name__ for m in restored.members] == ["SOAR", "Fast", "TRADES"]
    assert [m.epsilon for m in restored.members] == [0.1, 4 / 255, 4 / 255]
    assert restored.weights == [1.0, 0.0, 2.0]
    assert methods.deserialize(methods.serialize(combined)).get_config() == combined.get_config()


@keras.saving.register_keras_serializable(package="test_sum")
class Outside(methods.Method):
    """A method that is not in the registry."""

    def __init__(self, factor=2.0):
        self.factor = factor

    def terms(self, forward, x, y, *, loss_fn, keys):
        logits = forward.training(x)
        return methods.Terms(self.factor * loss_fn(y, logits), logits)


def test_member_from_outside_the_registry():
    combined = methods.Sum([Outside(3.0), "standard"])
    restored = methods.deserialize(methods.serialize(combined))
    assert restored.members[0].factor == 3.0


def test_same_point_is_forwarded_once():
    net, seen = recording_network()
    terms(methods.Sum([methods.Standard(), Outside()]), net=net)
    assert len(seen) == 1


def test_first_training_pass_alone_updates_batchnorm_and_weights_are_regularized_once():
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((SIDE,)),
            layers.BatchNormalization(momentum=0.9),
            layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5)),
        ]
    )
    forward = methods.Forward(net)
    got = methods.Sum([methods.Standard(), methods.Fast(0.1), methods.TRADES(steps=1)]).terms(
        forward,
        tf.constant(x, tf.float32),
        tf.constant(y),
        loss_fn=tf.nn.sparse_softmax_cross_entropy_with_logits,
        keys=keys(),
    )
    np.testing.assert_allclose(net.layers[0].moving_mean, 0.1 * x.mean(axis=0), rtol=1e-5)
    added = forward.added_losses(got.logits)
    np.testing.assert_allclose(added, [0.5 * np.sum(net.layers[1].kernel.numpy() ** 2)], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "at least one"),
        ({"methods": "adversarial+saor"}, "Did you mean 'soar'"),
        ({"methods": [{"beta": 1}]}, "must be a name"),
        ({"weights": [1]}, "2 numbers"),
        ({"weights": "0+0"}, "not all 0"),
        ({"weights": [1, -1]}, ">= 0"),
        ({"epsilon": 8}, "8/255"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        soar_tf.methods.get("sum", **arguments)
