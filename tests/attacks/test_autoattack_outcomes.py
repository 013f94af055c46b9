"""AutoAttack standard gives, bit for bit, what it gave before it knew the l1 norm.

`autoattack_outcomes.npz` holds a small network for digits, images, and what every stage returned
for them. Where another processor rounds the network differently, the images may differ; which of
them broke may not. The same is true of several targets at a time, since this network's matrix
products round by the number of rows. `python tests/attacks/test_autoattack_outcomes.py` records the
file again.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.attacks import working_set
from soar_tf.runs.provenance import environment

FILE = Path(__file__).with_name("autoattack_outcomes.npz")
EPSILON = {"linf": 0.12, "l2": 0.55}
STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")
COUNT = 12
# Shorter stages make a test of seconds; the whole attack is the slow one.
LENGTHS = {"short": {"steps": 25, "queries": 250, "targets": 3}, "standard": {}}


def network(weights):
    """Two dense layers as a function."""
    w1, b1, w2, b2 = (tf.constant(weight) for weight in weights)
    return lambda x: tf.nn.tanh(tf.reshape(x, [-1, 64]) @ w1 + b1) @ w2 + b2


def outcomes(weights, x, y, norm, length):
    """What each stage returns for all images by itself."""
    attack = soar_tf.attacks.get("autoattack", norm=norm, epsilon=EPSILON[norm])
    net, found = network(weights), {}
    for name, stage in attack.stages():
        config = stage.get_config()
        config |= {key: value for key, value in LENGTHS[length].items() if key in config}
        found[name] = type(stage).from_config(config)(net, x, y, seed=7).numpy()
    return found


@pytest.fixture(scope="module")
def recorded():
    with np.load(FILE) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("length", ["short", pytest.param("standard", marks=pytest.mark.slow)])
@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("together", [True, False])
def test_every_stage_returns_what_it_returned_before(recorded, monkeypatch, together, norm, length):
    weights = [recorded[f"weight{k}"] for k in range(4)]
    x, y = recorded["x"], recorded["y"]
    net = network(weights)
    same_rounding = not together and np.array_equal(net(x), recorded["logits"])
    same_rounding &= environment()["cpu_flags"] == str(recorded["cpu_flags"])
    if not together:
        monkeypatch.setattr(working_set, "_PARALLEL_ROWS", 1)
    found = outcomes(weights, x, y, norm, length)
    assert tuple(found) == STAGES
    broken_by = []
    for name, images in found.items():
        before = recorded[f"{length} {norm} {name}"]
        broken = np.argmax(net(images), axis=1) != y
        np.testing.assert_array_equal(broken, np.argmax(net(before), axis=1) != y)
        if same_rounding:
            np.testing.assert_array_equal(images, before)
        broken_by.append(broken)
    assert 0 < np.mean(np.logical_or.reduce(broken_by)) < 1


def record():
    """Trains the network and writes the file."""
    import keras

    keras.utils.set_random_seed(3)
    digits = soar_tf.datasets.load("digits")
    train, test = digits["train"], digits["test"].take(60)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "tanh"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(train.float_images(), train.labels, batch_size=64, epochs=8, verbose=0)
    weights = model.get_weights()
    x, y = test.float_images(), test.labels
    correct = np.argmax(network(weights)(x), axis=1) == y
    x, y = x[correct][:COUNT], y[correct][:COUNT]
    arrays = {f"weight{k}": weight for k, weight in enumerate(weights)}
    arrays |= {"x": x, "y": y, "logits": network(weights)(x).numpy()}
    arrays["cpu_flags"] = environment()["cpu_flags"]
    for norm, length in itertools.product(EPSILON, LENGTHS):
        for name, images in outcomes(weights, x, y, norm, length).items():
            arrays[f"{length} {norm} {name}"] = images
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    record()
