"""An attack keeps nothing of the networks that it attacked."""

import gc
import weakref

import numpy as np
import pytest

import soar_tf


@pytest.mark.parametrize("wrap", [False, True])
def test_networks_are_freed(wrap):
    attack = soar_tf.attacks.get("pgd5")
    x, y = np.full((2, 8, 8, 1), 0.5, np.float32), np.array([0, 1])

    def use():
        network = soar_tf.networks.mlp()
        attack((lambda x: network(x)) if wrap else network, x, y)
        return weakref.ref(network), weakref.ref(network.weights[0].value)

    references = [use() for _ in range(2)]
    gc.collect()
    assert [reference() for pair in references for reference in pair] == [None] * 4


def test_a_network_is_traced_once():
    attack = soar_tf.attacks.get("pgd5")
    x, y = np.full((2, 8, 8, 1), 0.5, np.float32), np.array([0, 1])
    network, calls = soar_tf.networks.mlp(), []

    def logits_fn(x):
        calls.append(1)
        return network(x)

    attack(logits_fn, x, y)
    traced = len(calls)
    attack(logits_fn, x, y)
    assert len(calls) == traced
