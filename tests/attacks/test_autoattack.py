"""AutoAttack's composition, and what every one of its parts must keep."""

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.attacks import as_logits_fn, autoattack

SHORT = {
    "standard": tuple(
        (name, cls, {**own, ("queries" if name == "square" else "steps"): 8})
        for name, cls, own in autoattack.VERSIONS["standard"]
    )
}
PARTS = (
    "apgd-ce:steps=9",
    "apgd-dlr:steps=9",
    "apgd-t:steps=5",
    "fab:steps=4",
    "fab-t:steps=4",
    "square:queries=60",
)
CASES = [(part, "linf") for part in PARTS] + [(part, "l2") for part in PARTS[::2] + PARTS[5:]]
CASES += [(part, "l1") for part in (PARTS[0], *PARTS[2:3], *PARTS[4:])]
EPSILON = {"linf": 0.06, "l2": 0.4, "l1": 1.0}
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def network(classes=5, shape=(6, 4, 1)):
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(12, "tanh", kernel_initializer="he_normal"),
            keras.layers.Dense(classes, kernel_initializer="he_normal"),
        ]
    )


def images(net, count=8):
    x = np.random.default_rng(6).uniform(size=(count, *net.input_shape[1:])).astype("float32")
    return x, np.argmax(net(x), axis=1)


@pytest.mark.parametrize(("part", "norm"), CASES)
def test_contract(part, norm):
    net = network()
    x, y = images(net)
    y[2] = (y[2] + 1) % 5  # misclassified already
    attack = soar_tf.attacks.get(part, norm=norm, epsilon=EPSILON[norm])
    found = attack(net, x, y, seed=3).numpy()
    delta = (found - x).reshape(8, -1)
    size = np.linalg.norm(delta, ORDERS[norm], axis=1)
    assert size.max() <= EPSILON[norm] + 1e-6 and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(found[2], x[2])
    broken = np.argmax(net(found), axis=1) != y
    assert broken.sum() > 1, "The case must be one in which the attack succeeds."
    # The same seed gives the same points; noise belongs to the example, not to its batch.
    np.testing.assert_array_equal(found, attack(net, x, y, seed=3))
    subset = np.array([5, 0, 7])
    again = attack(net, x[subset], y[subset], seed=3, indices=subset)
    np.testing.assert_allclose(again, found[subset], atol=1e-5)
    one = attack(net, x[:1], y[:1], seed=3)
    np.testing.assert_allclose(one, found[:1], atol=1e-5)
    np.testing.assert_array_equal(attack(net, x[:2], (y[:2] + 1) % 5), x[:2])
    # Whatever the batch's size and however many survive, there is one trace.
    (graph,) = attack._graphs.of(as_logits_fn(net))[0].values()
    assert graph.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("part", (*PARTS[1:3], *PARTS[4:]))
def test_two_classes(part):
    net = network(classes=2)
    x, y = images(net)
    found = soar_tf.attacks.get(part, epsilon=0.3)(net, x, y)
    assert np.mean(np.argmax(net(found), axis=1) == y) < 0.7


@pytest.mark.parametrize("part", (PARTS[0], PARTS[4]))
def test_a_convolution_never_sees_an_empty_batch(part):
    # oneDNN's fused convolutions fail on one: all examples are broken before the end.
    keras.utils.set_random_seed(0)
    convolution = [keras.layers.Conv2D(8, 3, activation="relu") for _ in range(2)]
    net = keras.Sequential(
        [keras.Input((8, 7, 3)), *convolution, keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    x, y = images(net, 2)
    found = soar_tf.attacks.get(part, epsilon=1.0)(net, x, y)
    assert (np.argmax(net(found), axis=1) != y).all()


def test_standard_is_exactly_the_four_attacks():
    stages = soar_tf.attacks.get("autoattack", epsilon=4 / 255).stages()
    assert [name for name, _ in stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    ce, targeted, fab, square = (attack for _, attack in stages)
    assert (ce.loss, ce.steps, ce.restarts, ce.rho, ce.eot_iter) == ("ce", 100, 1, 0.75, 1)
    assert (targeted.targets, targeted.steps, targeted.restarts) == (9, 100, 1)
    assert (fab.targets, fab.steps, fab.restarts) == (9, 100, 1)
    assert (fab.alpha_max, fab.eta, fab.beta) == (0.1, 1.05, 0.9)
    assert (square.queries, square.p_init, square.restarts) == (5000, 0.8, 1)
    assert {attack.epsilon for _, attack in stages} == {4 / 255}


def test_l1_has_five_starts_and_five_targets():
    attack = soar_tf.attacks.get("autoattack:norm=l1")
    assert (attack.norm, attack.epsilon) == ("l1", 12.0)
    stages = attack.stages()
    assert [name for name, _ in stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    ce, targeted, fab, square = (stage for _, stage in stages)
    assert (ce.loss, ce.steps, ce.restarts) == ("ce", 100, 5)
    assert (targeted.targets, targeted.steps, targeted.restarts) == (5, 100, 1)
    assert (fab.targets, fab.steps, fab.restarts) == (9, 100, 1)
    assert (square.queries, square.p_init, square.restarts) == (5000, 0.8, 1)
    assert {(stage.norm, stage.epsilon) for _, stage in stages} == {("l1", 12.0)}
    # Radii meant for linf attacks are not taken; those for l1 are.
    assert soar_tf.attacks.get("autoattack:norm=l1", epsilon=8 / 255).epsilon == 12.0
    assert soar_tf.attacks.get("autoattack:norm=l1,epsilon=3").epsilon == 3.0
    assert soar_tf.attacks.AutoAttack(epsilon=5.0, norm="l1").stages()[0][1].epsilon == 5.0


def test_other_versions():
    plus = soar_tf.attacks.get("autoattack:version=plus").stages()
    assert [(name, attack.restarts) for name, attack in plus] == [
        ("apgd-ce", 5),
        ("apgd-dlr", 5),
        ("fab", 5),
        ("square", 1),
        ("apgd-t", 1),
        ("fab-t", 1),
    ]
    rand = soar_tf.attacks.get("autoattack:version=rand").stages()
    assert [(name, attack.eot_iter) for name, attack in rand] == [("apgd-ce", 20), ("apgd-dlr", 20)]
    with pytest.raises(soar_tf.errors.InputError, match="version"):
        soar_tf.attacks.AutoAttack(version="standart")


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.04), ("l1", 0.6)])
def test_whole_and_stage_by_stage_agree(monkeypatch, norm, epsilon):
    monkeypatch.setattr(autoattack, "VERSIONS", SHORT)
    net = network()
    x, y = images(net, 12)
    attack = soar_tf.attacks.AutoAttack(epsilon=epsilon, norm=norm)
    whole = attack(net, x, y, seed=9).numpy()
    by_stage, active = x.copy(), np.arange(12)
    for _, stage in attack.stages():
        found = stage(net, x[active], y[active], seed=9, indices=active).numpy()
        broken = np.argmax(net(found), axis=1) != y[active]
        by_stage[active[broken]] = found[broken]
        active = active[~broken]
    np.testing.assert_allclose(whole, by_stage, atol=1e-5)
    assert 0 < len(active) < 12
    np.testing.assert_array_equal(whole[active], x[active])
    # No survivors: at the end, and from the start.
    broken = np.setdiff1d(np.arange(12), active)
    again = attack(net, x[broken], y[broken], seed=9, indices=broken)
    np.testing.assert_allclose(again, whole[broken], atol=1e-5)
    np.testing.assert_array_equal(attack(net, x, (y + 1) % 5), x)


def test_config_round_trip():
    for name in ("apgd-dlr", "apgd-t", "fab", "fab-t", "square", "autoattack:version=rand"):
        attack = soar_tf.attacks.get(name)
        copy = soar_tf.attacks.deserialize(soar_tf.attacks.serialize(attack))
        assert type(copy) is type(attack) and copy.get_config() == attack.get_config()
