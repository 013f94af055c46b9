"""Shards of an evaluation: together they are the evaluation of a single process, bit for bit."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.attacks import autoattack
from soar_tf.errors import InputError
from soar_tf.evaluation import Shard, merge

SHORT = tuple(
    (name, cls, {**own, ("queries" if name == "square" else "steps"): 4})
    for name, cls, own in autoattack.VERSIONS["standard"]
)
ATTACKS = ("pgd3:epsilon=0.06", "autoattack:epsilon=0.08")
# Batches of one image in any order give the same bits: which batch an image is in cannot matter.
OPTIONS = {"batch_size": 1, "seed": 2, "uint8": True}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setitem(autoattack.VERSIONS, "standard", SHORT)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((6, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(12, "tanh", kernel_initializer="he_normal"),
            keras.layers.Dense(5, kernel_initializer="he_normal"),
        ]
    )


@pytest.fixture(scope="module")
def data(network):
    x = np.random.default_rng(4).uniform(0, 1, (17, 6, 4, 1)).astype("float32")
    y = np.argmax(network(x), axis=1)
    y[3] = (y[3] + 1) % 5
    return x, y


def evaluated(network, data, shard=None, attacks=ATTACKS, keep=3, **changes):
    options = {**OPTIONS, **changes}
    return soar_tf.evaluate(network, *data, attacks, shard=shard, keep=keep, **options)


def untimed(result):
    """An attack's dictionary without its times."""
    figures = result.to_dict()
    del figures["seconds"], figures["images_per_second"]
    for stage in figures.get("stages", ()):
        stage.pop("seconds")
    return figures


def assert_equal(one, two):
    """Every value and array but the times, bit for bit."""
    for name in (
        "n",
        "clean_accuracy",
        "worst_case_accuracy",
        "uint8_worst_case_accuracy",
        "seed",
        "shard",
    ):
        assert getattr(one, name) == getattr(two, name), name
    np.testing.assert_array_equal(one.clean, two.clean)
    for first, second in zip(one.attacks, two.attacks, strict=True):
        np.testing.assert_array_equal(first.robust, second.robust)
        assert untimed(first) == untimed(second)
    first, second = one.examples.columns(), two.examples.columns()
    assert list(first) == list(second)
    for name, values in first.items():
        assert values.dtype == second[name].dtype, name
        np.testing.assert_array_equal(values, second[name])
    assert list(one.kept) == list(two.kept)
    for row, image in one.kept.items():
        np.testing.assert_array_equal(image, two.kept[row])


@pytest.fixture(scope="module")
def shards(network, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(autoattack.VERSIONS, "standard", SHORT)
        return [evaluated(network, data, f"{index}/3") for index in (1, 2, 3)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_merged_shards_are_the_single_process(order, shards, network, data):
    whole = evaluated(network, data)
    assert 0 < whole.worst_case_accuracy < whole.clean_accuracy < 1 and len(whole.kept) == 3
    broken_by = whole.examples.broken_by.tolist()
    assert ATTACKS[0] in broken_by and any("autoattack" in name for name in broken_by)
    merged = merge([shards[index] for index in order])
    assert_equal(merged, whole)
    times = [attack.seconds for attack in merged.attacks]
    assert times == [
        pytest.approx(sum(shard.attacks[k].seconds for shard in shards)) for k in (0, 1)
    ]


def test_in_larger_batches_only_rounding_can_differ(network, data):
    whole = evaluated(network, data, batch_size=5)
    merged = merge([evaluated(network, data, f"{k}/3", batch_size=5) for k in (1, 2, 3)])
    np.testing.assert_array_equal(merged.examples.broken_by, whole.examples.broken_by)
    for one, two in zip(merged.attacks, whole.attacks, strict=True):
        assert untimed(one) == untimed(two)
    columns = whole.examples.columns()
    for name, values in merged.examples.columns().items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, columns[name], rtol=1e-4)


def test_one_shard_of_one_is_the_whole(network, data):
    assert_equal(merge([evaluated(network, data, "1/1")]), evaluated(network, data))


def test_a_shard_knows_its_images(shards, data):
    shard = shards[1]
    assert shard.n == 6 and str(shard.shard) == "2/3"
    np.testing.assert_array_equal(shard.examples.columns()["index"], [1, 4, 7, 10, 13, 16])
    np.testing.assert_array_equal(shard.examples.label, data[1][1::3])
    assert set(shard.kept) <= {1, 4, 7, 10, 13, 16}
    np.testing.assert_array_equal(shard.examples.rows([4, 16]), [1, 5])


def test_shards_cover_every_position_once():
    for total, count in ((17, 3), (8, 8), (5, 1)):
        positions = [Shard(index, count).positions(total) for index in range(1, count + 1)]
        np.testing.assert_array_equal(np.sort(np.concatenate(positions)), np.arange(total))


def test_curves_and_distances_merge(network, data):
    options = {"seed": 2, "batch_size": 1}
    for measure, attack in (
        (soar_tf.evaluation.accuracy_curve, "pgd2:epsilon=0.05"),
        (soar_tf.evaluation.minimum_norms, "fmn:steps=8"),
    ):
        whole = measure(network, *data, attack, **options)
        merged = merge([measure(network, *data, attack, shard=f"{k}/2", **options) for k in (2, 1)])
        for field in dataclasses.fields(whole):
            one, two = getattr(whole, field.name), getattr(merged, field.name)
            np.testing.assert_array_equal(one, two)


def test_shards_resume(network, data, tmp_path, shards):
    state = tmp_path / "s"
    first = evaluated(network, data, "2/3", state=state)
    batches = []
    again = evaluated(network, data, "2/3", state=state, progress=batches.append)
    assert not batches
    assert_equal(dataclasses.replace(again, shard=None), dataclasses.replace(first, shard=None))
    with pytest.raises(InputError, match="belongs to another evaluation"):
        evaluated(network, data, "3/3", state=state)


def test_missing_and_doubled_shards_are_refused(shards):
    with pytest.raises(InputError, match="must hold all shards. Missing: 2/3."):
        merge([shards[0], shards[2]])
    with pytest.raises(InputError, match="each shard once. Received 1/3 twice: a and c."):
        merge([shards[0], shards[1], shards[0]], names=["a", "b", "c"])
    with pytest.raises(InputError, match="at least one"):
        merge([])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 3}, r"seed differs \(2 there, 3 here\)"),
        ({"attacks": ATTACKS[:1]}, "attacks differs"),
        ({"uint8": False}, "rounding to uint8 differs"),
        ({"keep": 0}, "images kept differs"),
        ({"shard": "2/4"}, r"number of shards differs \(3 there, 4 here\)"),
    ],
)
def test_foreign_shards_are_refused(change, sentence, shards, network, data):
    other = evaluated(network, data, **({"shard": "2/3"} | change))
    with pytest.raises(InputError, match=f"b belongs to another evaluation than a: {sentence}"):
        merge([shards[0], other, shards[2]], names=["a", "b", "c"])


def test_shards_of_other_images_labels_and_networks_are_refused(shards, network, data):
    x, y = data
    keras.utils.set_random_seed(5)
    other = keras.models.clone_model(network)
    for subject, sentence in (
        ((network, x[::-1].copy(), y), "images differs"),
        ((network, x, (y + 1) % 5), "labels differs"),
        ((other, x, y), "network differs"),
        ((network, x[:16], y[:16]), "number of images differs"),
    ):
        found = soar_tf.evaluate(*subject, ATTACKS, shard="2/3", keep=3, **OPTIONS)
        with pytest.raises(InputError, match=sentence):
            merge([shards[0], found, shards[2]])
    with pytest.raises(InputError, match="is no shard of an evaluation"):
        merge([evaluated(network, data, attacks=["fgsm"])])


def rounded(network):
    return lambda x: network(tf.round(x * 15) / 15)


def test_shards_with_the_adaptive_attack_are_the_single_process(network, data):
    def found(shard=None):
        return evaluated(rounded(network), data, shard, attacks=["pgd3:epsilon=0.06"])

    whole = found()
    assert whole.hides_gradients and whole.attacks[1].name == "adaptive"
    assert whole.attacks[1].robust_accuracy < whole.attacks[0].robust_accuracy
    assert_equal(merge([found("2/2"), found("1/2")]), whole)


def test_shards_with_other_adaptive_attacks_are_refused(network, data):
    masked, other = rounded(network), keras.models.clone_model(network)
    options = {"attacks": ["fgsm:epsilon=0.06"]}
    first = evaluated(masked, data, "1/2", **options)
    for changes in (
        {"adaptive": False},
        {"adaptive": True},
        {"adaptive": True, "source": other},
    ):
        second = evaluated(masked, data, "2/2", **options, **changes)
        with pytest.raises(
            InputError, match="b and a must have the same adaptive attack.*evaluate all shards"
        ):
            merge([first, second], names=["a", "b"])


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("0/3", "K from 1 to N. Received: 0/3"),
        ("4/3", "K from 1 to N. Received: 4/3"),
        ("3", "must be K/N, such as 3/8. Received: '3'"),
        (3, "must be K/N, such as 3/8. Received: 3"),
        ("1/18", "at most as many shards as there are images, 17. Received: 1/18"),
    ],
)
def test_bad_shards_are_refused(value, sentence, network, data):
    with pytest.raises(InputError, match=sentence):
        evaluated(network, data, value, attacks=["fgsm"])
