"""Attacks on files without gradients: `Transferred`, the evaluation's guard, transfer targets."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.attacks import Transferred
from soar_tf.errors import InputError


def _without_gradients(network, step=None):
    """A network as a shipped file presents it: a NumPy function; `step` rounds its logits."""

    def predict(x):
        logits = network(x, training=False).numpy()
        return logits if step is None else np.round(logits / step).astype(np.float32) * step

    def logits_fn(x):
        logits = tf.numpy_function(predict, [tf.cast(x, tf.float32)], tf.float32)
        logits.set_shape([x.shape[0], network.output_shape[1]])
        return logits

    logits_fn.has_gradients = False
    return logits_fn


@pytest.fixture
def linear():
    """A linear network of 4 pixels, 2 classes: margin (x - .5) . w, broken at l1(w) * epsilon."""
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    weights = np.array([1.0, -2.0, 0.5, 1.5])
    network.set_weights([np.stack([weights / 2, -weights / 2], 1), np.zeros(2)])
    x = np.random.default_rng(0).uniform(0.3, 0.7, (60, 4)).astype("float32")
    margin = x.astype("float64") @ weights
    y = (margin < 0).astype(np.int64)
    return network, x, y, np.abs(margin) > 0.1 * np.abs(weights).sum()


@pytest.mark.parametrize("name", ["fgsm", "pgd40", "apgd-ce"])
def test_the_sources_gradients_find_what_a_white_box_attack_finds(name, linear):
    network, x, y, robust = linear
    attack = soar_tf.attacks.get(name, epsilon=0.1)
    found = soar_tf.evaluate(_without_gradients(network), x, y, {"a": Transferred(attack, network)})
    np.testing.assert_array_equal(found.attacks[0].robust, robust)
    assert 0 < robust.mean() < 1


def test_rounded_logits_hide_nothing_from_it(linear):
    network, x, y, _ = linear
    file = _without_gradients(network, step=0.05)
    x = x[(np.abs(network(x).numpy()[:, 0]) > 0.05)]
    y = network(x).numpy().argmax(axis=1)
    pgd = soar_tf.attacks.get("pgd10", epsilon=0.2)
    for way in ("crafted", "straight-through"):
        found = soar_tf.evaluate(file, x, y, {"a": Transferred(pgd, network, way=way)})
        assert found.clean_accuracy == 1.0 and found.worst_case_accuracy < 0.5


def test_straight_through_stops_only_when_the_file_is_fooled(linear):
    """The file's boundary is behind the source's: what stops at the source's misses it."""
    network, x, y, _ = linear
    weights, bias = network.get_weights()
    file = keras.models.clone_model(network)
    file.set_weights([weights, bias + np.array([0.15, 0.0])])  # class 0 is 0.15 stronger
    x, y = x[y == 0], y[y == 0]
    apgd = soar_tf.attacks.get("apgd-ce", epsilon=0.2)
    results = {
        way: soar_tf.evaluate(
            _without_gradients(file), x, y, {"a": Transferred(apgd, network, way=way)}
        ).worst_case_accuracy
        for way in ("crafted", "straight-through")
    }
    w = weights[:, 0] - weights[:, 1]
    exact = (x.astype("float64") @ w + 0.15 > 0.2 * np.abs(w).sum()).mean()
    assert results["straight-through"] == pytest.approx(exact)
    assert results["crafted"] > exact


def test_stages_leave_black_box_attacks_to_the_file():
    network = soar_tf.networks.mlp()
    stages = dict(Transferred(soar_tf.attacks.get("autoattack"), network).stages())
    assert list(stages) == [
        "apgd-ce crafted",
        "apgd-ce straight-through",
        "apgd-t crafted",
        "apgd-t straight-through",
        "fab-t crafted",
        "fab-t straight-through",
        "square",
    ]
    assert isinstance(stages["square"], soar_tf.attacks.Square)


def test_called_by_itself_it_does_both(linear):
    network, x, y, robust = linear
    attack = Transferred(soar_tf.attacks.get("pgd40", epsilon=0.1), network)
    x_adv = attack(_without_gradients(network), x, y).numpy()
    assert np.abs(x_adv - x).max() <= 0.1 + 1e-6
    np.testing.assert_array_equal(network(x_adv).numpy().argmax(axis=1) == y, robust)


def test_white_box_attacks_on_a_file_are_refused(linear):
    network, x, y, _ = linear
    file = _without_gradients(network)
    with pytest.raises(InputError, match="must not need gradients.*'pgd5'.*Transferred"):
        soar_tf.evaluate(file, x, y, ["pgd5"])
    assert soar_tf.evaluate(file, x, y, ["square:queries=2"]).n == 60
    with pytest.raises(InputError, match="Sources must have gradients.*Received: file"):
        soar_tf.evaluation.transfer_matrix({"file": file}, {"file": file}, x, y, "fgsm")


def test_a_transfer_target_needs_no_gradients(linear):
    network, x, y, robust = linear
    targets = {"file": _without_gradients(network), "network": network}
    attack = soar_tf.attacks.get("fgsm", epsilon=0.1)
    found = soar_tf.evaluation.transfer_matrix({"network": network}, targets, x, y, attack)
    np.testing.assert_allclose(found.accuracy, [[robust.mean(), robust.mean()]])
    assert found.to_dict()["white_box"] == {"file": None, "network": robust.mean()}
    assert not found.masked()
