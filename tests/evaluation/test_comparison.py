"""McNemar's exact test, the interval of a paired difference, and what may be compared."""

import dataclasses
import fractions
import math

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.errors import InputError
from soar_tf.evaluation import compare
from soar_tf.evaluation.comparison import mcnemar, paired
from soar_tf.evaluation.intervals import paired_difference


@pytest.mark.parametrize(
    ("one", "two"), [(0, 0), (1, 0), (5, 0), (3, 3), (2, 9), (9, 2), (14, 31), (700, 640)]
)
def test_the_p_value_is_that_of_a_fair_coin(one, two):
    total = one + two
    # By its definition: the probability of every split at most as likely as this one.
    chances = [fractions.Fraction(math.comb(total, k), 2**total) for k in range(total + 1)]
    exact = sum(chance for chance in chances if chance <= chances[one])
    assert mcnemar(one, two) == pytest.approx(float(exact), rel=1e-12)


def test_tiny_p_values_are_numbers():
    assert mcnemar(3000, 0) == pytest.approx(2.0 * 0.0, abs=1e-300)
    assert 0.9 < mcnemar(5000, 5001) <= 1.0


def test_the_interval_by_hand():
    # (12 + .5) - (4 + .5) = 8 of 52 trials; the spread is 1.96 sqrt(17 - 64 / 52) / 52.
    low, high = paired_difference(12, 4, 50)
    spread = 1.96 * math.sqrt(17 - 64 / 52) / 52
    assert (low, high) == pytest.approx((8 / 52 - spread, 8 / 52 + spread))
    low, high = paired_difference(4, 12, 50)
    assert (low, high) == pytest.approx((-8 / 52 - spread, -8 / 52 + spread))
    low, high = paired_difference(0, 0, 20)
    assert low == -high and 0 < high < 0.15


@pytest.mark.parametrize(("first", "second"), [(0.1, 0.1), (0.2, 0.05), (0.3, 0.1), (0.02, 0.0)])
def test_the_interval_covers_the_truth(first, second):
    n, covered = 40, 0.0
    for one in range(n + 1):
        for two in range(n + 1 - one):
            low, high = paired_difference(one, two, n)
            rest = n - one - two
            chance = math.comb(n, one) * math.comb(n - one, two)
            chance *= first**one * second**two * (1 - first - second) ** rest
            covered += chance * (low <= first - second <= high)
    assert 0.93 <= covered <= 1.0


def test_every_image_is_counted_once():
    generator = np.random.default_rng(0)
    first, second = generator.uniform(size=(2, 300)) < [[0.5], [0.4]]
    found = paired(first, second, positions=np.arange(300) * 3)
    assert found.both + found.neither + len(found.only_first) + len(found.only_second) == 300
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.accuracy == (first.mean(), second.mean())
    np.testing.assert_array_equal(found.only_first, 3 * np.flatnonzero(first & ~second))
    mirrored = paired(second, first)
    assert mirrored.p_value == found.p_value
    assert mirrored.interval == pytest.approx(tuple(-end for end in reversed(found.interval)))
    with pytest.raises(InputError, match="one outcome for each of `first`"):
        paired(first, second[1:])


@pytest.fixture(scope="module")
def results():
    """Two networks on the same 24 images: one, and the same with noise on its weights."""
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    x = np.random.default_rng(1).uniform(0, 1, (24, 4, 4, 1)).astype("float32")
    y = np.argmax(network(x), axis=1)
    second = keras.models.clone_model(network)
    kernel, bias = network.get_weights()
    noise = np.random.default_rng(2).normal(size=kernel.shape)
    second.set_weights([kernel + 0.6 * noise, bias])
    return [
        soar_tf.evaluate(model, x, y, ["pgd3:epsilon=0.03"], batch_size=24)
        for model in (network, second)
    ]


def test_evaluations_are_compared(results):
    found = compare(*results)
    robust = [result.examples.broken_by == "" for result in results]
    np.testing.assert_array_equal(found.only_first, np.flatnonzero(robust[0] & ~robust[1]))
    assert found.difference != 0 and found.accuracy[0] == results[0].worst_case_accuracy
    assert found.to_dict()["only_first"] == found.only_first.tolist()


def test_what_cannot_be_compared_is_refused(results):
    first, second = results
    examples = second.examples
    moved = dataclasses.replace(examples, label=(examples.label + 1) % 3)
    with pytest.raises(InputError, match="the images' labels differ"):
        compare(first, dataclasses.replace(second, examples=moved))
    moved = dataclasses.replace(examples, index=np.arange(1, 25))
    with pytest.raises(InputError, match="the images' positions differ"):
        compare(first, dataclasses.replace(second, examples=moved))
    attack = dataclasses.replace(second.attacks[0], epsilon=0.05)
    with pytest.raises(InputError, match="Received: linf 0.05 instead of linf 0.03"):
        compare(first, dataclasses.replace(second, attacks=[attack]))
