"""Networks as logits functions whose graphs are shared."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.attacks import FABT, PGD, Square
from soar_tf.evaluation import Evaluator
from soar_tf.evaluation.parts import search_graph, traced_once
from soar_tf.models.inference import TracedOnce, as_logits_fn
from soar_tf.ops import random


class CountsTraces(keras.layers.Layer):
    """Counts how often Python runs it while a graph is built."""

    traces = 0

    def call(self, x):
        self.traces += not tf.executing_eagerly()
        return x


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            CountsTraces(),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )


@pytest.fixture
def data(network):
    x = np.random.default_rng(0).uniform(0, 1, (6, 6, 6, 1)).astype("float32")
    return x, np.argmax(as_logits_fn(network)(x), axis=1)


@pytest.mark.parametrize("attack", [PGD(0.1, steps=3), FABT(0.1, steps=3), Square(0.1, queries=9)])
def test_attacks_find_the_same_bits_through_a_shared_trace(network, data, attack):
    x, y = data
    logits_fn = as_logits_fn(network)
    given = tf.constant(x), tf.constant(y), random.example_keys(3, tf.range(len(x)))
    found = [
        search_graph(attack, used, x.shape[1:])(*given).numpy()
        for used in (logits_fn, TracedOnce(logits_fn))
    ]
    np.testing.assert_array_equal(*found)
    assert (found[0] != x).any()


def test_autoattack_traces_a_network_once(network, data):
    layer = network.layers[0]
    evaluator = Evaluator(network, ["fgsm", "autoattack"])
    evaluator._parts(data[0].shape[1:], counted=False)
    layer.traces = 0
    for _, _, parts in evaluator._parts(data[0].shape[1:], counted=False):
        for part in parts:
            part.graph.get_concrete_function()
    assert layer.traces == 1


def test_new_weights_are_seen_through_a_shared_trace(network, data):
    shared = tf.function(TracedOnce(as_logits_fn(network)))
    before = shared(tf.constant(data[0])).numpy()
    network.set_weights([2 * weight for weight in network.get_weights()])
    after = shared(tf.constant(data[0])).numpy()
    assert (before != after).any()
    np.testing.assert_allclose(after, network(data[0], training=False), rtol=1e-5, atol=1e-6)


def test_only_keras_models_are_shared(network):
    assert isinstance(traced_once(as_logits_fn(network), network), TracedOnce)
    assert traced_once(abs, abs) is abs


def test_progress_counts_the_passes_within_a_shared_trace(network, data):
    seen = []
    x, y = data
    plain = soar_tf.evaluate(network, x, y, ["fgsm", "pgd:steps=3,epsilon=0.1"])
    counted = soar_tf.evaluate(
        network, x, y, ["fgsm", "pgd:steps=3,epsilon=0.1"], progress=seen.append
    )
    assert counted.worst_case_accuracy == plain.worst_case_accuracy
    assert seen[-1].done == len(x)
    assert seen[-1].seconds_left == 0
