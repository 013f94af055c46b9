"""Distances of a minimum-norm attack: closed form, the attack's own radius, resuming."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError
from soar_tf.evaluation import State, curve_from_distances, minimum_norms, tables

X = np.broadcast_to(
    np.linspace(0.05, 0.95, 10, dtype="float32")[:, None, None, None], (10, 2, 2, 1)
)
Y = (X[:, 0, 0, 0] > 0.5).astype(int)


def split(x):
    """Two classes, split at a mean pixel of 0.5."""
    margin = tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], -1]), axis=1) - 0.5
    return tf.stack([-margin, margin], axis=1) * 20.0


# The mean has to move by |m - .5|: all four pixels by that (linf), by norm 2 |m - .5| in l2, and
# by a sum of 4 |m - .5| in l1.
FACTORS = {"fmn": 1.0, "fmn:norm=l2": 2.0, "fmn:norm=l1": 4.0, "ddn": 2.0, "deepfool": 2.0}


@pytest.mark.parametrize("attack", FACTORS)
def test_the_closed_form(attack):
    y = Y.copy()
    y[2] = 1 - y[2]  # misclassified already
    found = minimum_norms(split, X, y, attack, batch_size=4)
    expected = FACTORS[attack] * np.abs(X[:, 0, 0, 0] - 0.5)
    expected[2] = 0.0
    assert (found.distances > expected * 0.999).sum() == 9
    np.testing.assert_allclose(found.distances, expected, rtol=0.1 if attack == "ddn" else 0.03)
    assert found.n == 10 and found.norm == soar_tf.attacks.get(attack).norm
    assert found.median == np.median(found.distances)
    assert found.accuracy([0.0, 0.3 * FACTORS[attack]]) == (0.9, 0.4)


def test_an_example_breaks_at_the_radii_that_reach_its_distance():
    digits = soar_tf.datasets.load("digits")["test"].take(30)
    x, y = digits.float_images(), digits.labels
    network = soar_tf.networks.mlp(width=0.25)
    y = np.argmax(network(x), axis=1)
    found = minimum_norms(network, x, y, "fmn:steps=25", seed=3)
    for epsilon in np.quantile(found.distances, [0.2, 0.7]) * 1.0001:
        attack = soar_tf.attacks.FMN(epsilon=epsilon, steps=25)
        result = soar_tf.evaluate(network, x, y, [attack], seed=3)
        np.testing.assert_array_equal(result.attacks[0].robust, found.distances > epsilon)
        assert result.worst_case_accuracy == found.accuracy([epsilon])[0]


def test_nothing_found_is_infinitely_far():
    def flat(x):
        return tf.constant([[2.0, 0.5]]) + 0.0 * tf.reshape(x, [-1, 4])[:, :1]

    found = minimum_norms(flat, X, np.zeros(10, int), "fmn:steps=3")
    assert np.isinf(found.distances).all() and np.isinf(found.median)
    assert found.accuracy([0.0, 1.0]) == (1.0, 1.0)


def test_it_resumes_from_a_state_with_the_same_bits(tmp_path):
    class Killed(BaseException):
        pass

    def kill(call):
        raise Killed

    options = {"batch_size": 4, "state": tmp_path / "s"}
    whole = minimum_norms(split, X, Y, "fmn:norm=l1,steps=10", batch_size=4)
    with pytest.raises(Killed):
        minimum_norms(split, X, Y, "fmn:norm=l1,steps=10", progress=kill, **options)
    calls = []
    again = minimum_norms(split, X, Y, "fmn:norm=l1,steps=10", progress=calls.append, **options)
    np.testing.assert_array_equal(again.distances, whole.distances)
    assert calls and calls[0].name == "fmn:norm=l1,steps=10 distances"
    calls.clear()
    minimum_norms(split, X, Y, "fmn:norm=l1,steps=10", progress=calls.append, **options)
    assert calls == []


def test_state_files_from_before_the_l1_column_go_on(tmp_path, monkeypatch):
    whole = soar_tf.evaluate(split, X, Y, ["fgsm:epsilon=0.2"], keep=2)
    before = np.dtype([(name, tables.ROW[name]) for name in tables.ROW.names if name != "l1"])
    with monkeypatch.context() as patch:
        patch.setattr(tables, "ROW", before)
        patch.setattr(tables, "STORED", np.dtype([("row", "<i8"), *before.descr]))
        patch.setattr("soar_tf.ops.norms.NAMES", ("linf", "l2"))
        patch.setattr("soar_tf.evaluation.outcome.examples", lambda *_: None)
        soar_tf.evaluate(split, X, Y, ["fgsm:epsilon=0.2"], state=tmp_path / "s", keep=2)
    assert State(tmp_path / "s").table("0 fgsm:epsilon=0.2", 10)["done"].all()
    calls = []
    again = soar_tf.evaluate(
        split, X, Y, ["fgsm:epsilon=0.2"], state=tmp_path / "s", keep=2, progress=calls.append
    )
    assert calls == []
    for name in ("broken_by", "linf", "l2", "adversarial_prediction", "adversarial_loss"):
        expected = getattr(whole.examples, name)
        np.testing.assert_array_equal(getattr(again.examples, name), expected)
    assert np.isnan(again.examples.l1).all()
    np.testing.assert_allclose(whole.examples.l1[whole.examples.broken_by != ""], 0.8, rtol=1e-5)


@pytest.mark.parametrize("attack", ["pgd20", "autoattack", "fab", "spatial"])
def test_other_attacks_are_refused(attack):
    with pytest.raises(InputError, match="`attack` must look for the nearest point: .*fmn"):
        minimum_norms(split, X, Y, attack)


@pytest.mark.parametrize("distances", [[], [0.1, np.nan], [-0.1]])
def test_distances_that_are_none(distances):
    with pytest.raises(InputError, match="`distances` must hold"):
        curve_from_distances(np.array(distances), [0.1])


def test_two_attacks_give_the_worst_case_of_both():
    curve = soar_tf.evaluation.accuracy_curve(split, X, Y, "fgsm", [0.1, 0.2, 0.4])
    expected = np.abs(X[:, 0, 0, 0] - 0.5)
    np.testing.assert_array_equal(
        curve.broken_at,
        [min([e for e in (0.1, 0.2, 0.4) if e > d], default=np.inf) for d in expected],
    )
    found = minimum_norms(split, X, Y, "fmn:steps=20")
    both = curve_from_distances(np.minimum(curve.broken_at, found.distances), curve.epsilons)
    assert (np.array(both) <= curve.accuracy).all()
    assert (np.array(both) <= found.accuracy(curve.epsilons)).all()
