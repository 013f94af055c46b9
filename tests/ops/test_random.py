"""Counter-based noise: known answers, moments, independence, and equality however it is run."""

import math

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.ops import random

KEYS = random.example_keys(7, tf.range(4096), step=5, purpose="test")
MASK = 0xFFFFFFFF


def pcg4d(v):
    """The hash as Jarzynski and Olano print it (JCGT 2020, listing of pcg4d), in plain Python."""
    v = [(word * 1664525 + 1013904223) & MASK for word in v]
    for last in (False, True):
        v[0] = (v[0] + v[1] * v[3]) & MASK
        v[1] = (v[1] + v[2] * v[0]) & MASK
        v[2] = (v[2] + v[0] * v[1]) & MASK
        v[3] = (v[3] + v[1] * v[2]) & MASK
        if not last:
            v = [word ^ (word >> 16) for word in v]
    return v


@pytest.mark.parametrize("words", [(0, 0, 0, 0), (1, 2, 3, 4), (MASK, 123456789, 0, 2**31)])
def test_the_hash_is_pcg4d(words):
    ours = random._pcg4d(*(tf.constant([word], tf.uint32) for word in words))
    assert [int(word[0]) for word in ours] == pcg4d(list(words))


KNOWN_KEYS = [[3663829305, 1696017300], [4259201692, 3821784461]]
KNOWN_UNIFORM = [
    [
        0.9535900950431824,
        0.5068827271461487,
        0.24822849035263062,
        0.01104801893234253,
        0.7998771071434021,
    ],
    [
        0.8140072226524353,
        0.6200024485588074,
        0.814031183719635,
        0.5358183979988098,
        0.7452921271324158,
    ],
]
KNOWN_NORMAL = [[1.6807070970535278, -0.6800749897956848], [0.8927602171897888, 0.8928497433662415]]
KNOWN_DERIVED = [[2663808549, 1990132919], [2531053072, 2281458876]]


def test_known_answers():
    # Noise must never change between versions: runs would no longer resume to the same weights.
    keys = random.example_keys(2**40 + 3, tf.constant([0, 12345]), step=9, purpose="attack")
    np.testing.assert_array_equal(keys, KNOWN_KEYS)
    np.testing.assert_allclose(random.uniform(keys, (5,)), KNOWN_UNIFORM, rtol=1e-6)
    np.testing.assert_allclose(random.normal(keys, (2,)), KNOWN_NORMAL, rtol=1e-5)
    np.testing.assert_array_equal(random.derive(keys, "start"), KNOWN_DERIVED)


def test_uniform_moments_and_chi_square():
    u = random.uniform(KEYS, (16,)).numpy().astype(np.float64)
    n = u.size
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * n)
    assert abs(u.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)
    # Chi-square over 64 bins has mean 63 and standard deviation sqrt(126).
    for values in (u.ravel(), u[:, 0], u[0:64].ravel()):
        counts, _ = np.histogram(values, bins=64, range=(0, 1))
        expected = values.size / 64
        assert abs(np.sum((counts - expected) ** 2) / expected - 63) < 5 * math.sqrt(126)


def test_pairs_of_neighbours_are_uniform_on_the_square():
    u = random.uniform(KEYS, (8,)).numpy()
    for first, second in ((u[:, 0], u[:, 1]), (u[:, 0], u[:, 4]), (u[:-1, 0], u[1:, 0])):
        counts, *_ = np.histogram2d(first, second, bins=8, range=[(0, 1), (0, 1)])
        expected = first.size / 64
        assert abs(np.sum((counts - expected) ** 2) / expected - 63) < 5 * math.sqrt(126)


def test_normal_moments():
    z = random.normal(KEYS, (16,)).numpy().astype(np.float64).ravel()
    n = z.size
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    within = np.mean(np.abs(z) < 1.0)
    assert abs(within - 0.6826895) < 5 * math.sqrt(0.68 * 0.32 / n)


def test_ends_are_never_reached(monkeypatch):
    for bits, end in ((0, 0.0), (MASK, 1.0)):
        words = tf.constant([[bits] * 3], tf.uint32)
        monkeypatch.setattr(random, "_bits", lambda keys, count, words=words: words)
        u = random.uniform(KEYS[:1], (3,)).numpy()
        assert (u > 0).all() and (u < 1).all() and abs(u - end).max() < 1e-6
        assert np.isfinite(random.normal(KEYS[:1], (3,)).numpy()).all()
        assert abs(random.normal(KEYS[:1], (3,)).numpy()).max() < 5.4


def test_range():
    u = random.uniform(KEYS, (4,), -0.25, 0.75).numpy()
    assert u.min() >= -0.25 and u.max() <= 0.75 and u.min() < -0.24 and u.max() > 0.74


@pytest.mark.parametrize(
    "other",
    [
        random.example_keys(8, tf.range(4096), step=5, purpose="test"),
        random.example_keys(7 + 2**32, tf.range(4096), step=5, purpose="test"),
        random.example_keys(7, tf.range(4096), step=6, purpose="test"),
        random.example_keys(7, tf.range(4096), step=5, purpose="tess"),
        random.example_keys(7, tf.range(4096) + 1, step=5, purpose="test"),
        random.derive(KEYS, "start"),
        random.derive(KEYS, 0),
        random.derive(random.derive(KEYS, 0), 0),
    ],
    ids=["seed", "high seed", "step", "purpose", "example", "derived", "index", "index of index"],
)
def test_whatever_differs_draws_independent_noise(other):
    a, b = (random.uniform(keys, (4,)).numpy().ravel() for keys in (KEYS, other))
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(a.size)
    assert np.mean(a == b) < 1e-3


def test_keys_do_not_collide():
    derived = tf.concat([KEYS] + [random.derive(KEYS, k) for k in range(8)], axis=0).numpy()
    words = derived[:, 0].astype(np.uint64) << np.uint64(32) | derived[:, 1]
    assert len(np.unique(words)) == len(words)


def test_noise_depends_on_the_key_alone():
    whole = random.normal(KEYS, (3, 2)).numpy()
    rows = np.array([77, 3, 4000])
    np.testing.assert_array_equal(random.normal(tf.gather(KEYS, rows), (3, 2)), whole[rows])
    # A longer draw need not begin like a shorter one, but the first blocks of four words do not
    # depend on the shape in which they are asked for.
    np.testing.assert_array_equal(
        random.uniform(KEYS, (6,)).numpy().reshape(-1, 2, 3), random.uniform(KEYS, (2, 3))
    )


def test_eager_graph_and_xla_draw_the_same_bits():
    def bits(indices, step):
        keys = random.derive(random.example_keys(3, indices, step=step, purpose="p"), step)
        return random._bits(keys, 7), random.uniform(keys, (3,), -2.0, 2.0)

    arguments = tf.range(5), tf.constant(4, tf.int64)
    results = [
        bits(*arguments),
        tf.function(bits)(*arguments),
        tf.function(bits, jit_compile=True)(*arguments),
        bits(tf.range(5, dtype=tf.int64), 4),  # a Python step and an int64 index: the same noise
    ]
    for words, uniform in results[1:]:
        np.testing.assert_array_equal(words, results[0][0])
        np.testing.assert_array_equal(uniform, results[0][1])


def test_scalar_shape():
    assert random.uniform(KEYS, ()).shape == (4096,)
    assert random.normal(KEYS[:3], (2, 1, 5)).shape == (3, 2, 1, 5)
