"""C&W and L-BFGS: the bisection by hand, and minima that are known."""

import numpy as np
import pytest
import tensorflow as tf

from soar_tf import attacks
from soar_tf.attacks import LBFGS, CarliniWagner, bisection
from soar_tf.errors import InputError
from soar_tf.ops import losses
from soar_tf.ops.hyperplane import project_onto_hyperplane

RNG = np.random.default_rng(6)
W = RNG.normal(size=6).astype("float32")
X = RNG.uniform(0.35, 0.65, size=(6, 6)).astype("float32")
Y = np.zeros(6, int)
BIAS = -float((X @ W).max()) - 0.3  # every example is of class 0, at different distances
DISTANCES = -(X @ W + BIAS) / np.linalg.norm(W)

BUILD = {
    "cw": lambda **kw: CarliniWagner(
        **{"steps": 150, "search_steps": 6, "initial_c": 0.1, "learning_rate": 0.02, **kw}
    ),
    "lbfgs": lambda **kw: LBFGS(**{"search_steps": 11, **kw}),
}
both = pytest.mark.parametrize("name", BUILD)


def linear(x, weights=W, bias=BIAS):
    other = tf.linalg.matvec(x, weights) + bias
    return tf.stack([tf.zeros_like(other), other], axis=1)


def sizes(found, x=X):
    return np.linalg.norm(found - x, axis=1)


@both
def test_the_distance_to_a_linear_boundary_is_found(name):
    attack = BUILD[name](epsilon=10.0, early_stop=False)
    found = attack(linear, X, Y)
    assert (np.argmax(linear(found), axis=1) == 1).all()
    assert (sizes(found) >= DISTANCES - 1e-5).all()
    np.testing.assert_allclose(sizes(found), DISTANCES, rtol=0.03)


@both
def test_the_distance_within_the_box_is_found(name):
    # Pixels on the box's faces cannot help; the exact projection is the oracle.
    x = X.copy()
    x[:, 0], x[:, 1] = float(W[0] > 0), 0.99 if W[1] > 0 else 0.01

    bias = -float((x @ W).max()) - 0.3

    def net(x):
        return linear(x, bias=bias)

    gap = tf.constant(-(x @ W + bias))
    oracle = project_onto_hyperplane(tf.constant(x), tf.constant([W] * 6), gap, "l2", (0.0, 1.0))
    free = (gap / np.linalg.norm(W)).numpy()
    assert (sizes(oracle, 0.0) > 1.03 * free).all()  # the box binds
    found = BUILD[name](epsilon=10.0, early_stop=False)(net, x, Y)
    np.testing.assert_allclose(sizes(found, x), sizes(oracle, 0.0), rtol=0.06)


@both
def test_a_point_counts_if_it_lies_within_epsilon(name):
    epsilon = float(np.sort(DISTANCES)[2:4].mean())
    found = BUILD[name](epsilon=epsilon)(linear, X, Y).numpy()
    near = epsilon > DISTANCES
    np.testing.assert_array_equal(np.argmax(linear(found), axis=1) == 1, near)
    np.testing.assert_array_equal(found[~near], X[~near])
    assert sizes(found).max() <= epsilon


@both
def test_early_stop_only_saves_work(name):
    calls = []

    def counted(x):
        calls.append(len(x))
        return linear(x)

    broken, work = [], []
    tf.config.run_functions_eagerly(True)
    try:
        for early_stop in (True, False):
            calls.clear()
            attack = BUILD[name](
                epsilon=0.6, early_stop=early_stop, steps=12, search_steps=2, initial_c=10.0
            )
            broken.append(np.argmax(linear(attack(counted, X, Y)), axis=1))
            work.append(sum(calls))
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_array_equal(*broken)
    assert broken[0].any() and work[0] < work[1]


def test_pixels_on_the_faces_of_the_box_move_within_few_steps():
    x = np.tile(np.float32(W < 0), (1, 1))  # every pixel as far from class 1 as the box allows
    bias = -float(x[0] @ W) - 0.2
    attack = BUILD["cw"](epsilon=1.0, steps=100, search_steps=3, initial_c=1.0)

    def net(x):
        return linear(x, bias=bias)

    assert np.argmax(net(attack(net, x, Y[:1])), axis=1) == 1


def test_confidence_is_the_margin():
    found = BUILD["cw"](epsilon=10.0, confidence=0.2, early_stop=False)(linear, X, Y)
    margin = losses.margin(Y, linear(found)).numpy()
    assert (margin >= 0.2).all() and margin.max() < 0.3


def test_the_constant_is_multiplied_by_ten_then_bisected():
    tried = []

    class Scripted(bisection.Bisection):
        """Succeeds with c >= 5 (first row) and never (second row)."""

        def _descend(self, logits_fn, result, rows):
            tried.append(rows.c.numpy())
            return result, rows, tf.constant([True, False]) & (rows.c >= 5.0)

    attack = Scripted(1.0, "l2", 1, 6, 0.1, None, True, (0.0, 1.0))
    attack.search(linear, tf.constant(X[:2]), tf.zeros(2, tf.int64), tf.zeros([2, 2], tf.uint32))
    # .1, 1, 10 succeeds; between 1 and 10: 5.5 succeeds; between 1 and 5.5: 3.25; then 4.375.
    np.testing.assert_allclose([c[0] for c in tried], [0.1, 1, 10, 5.5, 3.25, 4.375], rtol=1e-6)
    np.testing.assert_allclose([c[1] for c in tried], 0.1 * 10.0 ** np.arange(6), rtol=1e-5)


def test_adam_by_hand():
    # The first step of Adam is the learning rate, against the gradient's sign.
    attack, zeros = CarliniWagner(learning_rate=0.1), tf.zeros([1, 2])
    state = attack._adam(0, _state(zeros), tf.constant([[4.0, -1e-3]]))
    np.testing.assert_allclose(state.w, [[-0.1, 0.1]], rtol=1e-4)
    # Second gradients (-4, 0): means .36 - .4, .9 * -1e-4; over 1 - .81; squares .999 * s + ...
    state = attack._adam(1, state, tf.constant([[-4.0, 0.0]]))
    mean = np.array([(0.9 * 0.4 - 0.4) / 0.19, -0.9e-4 / 0.19])
    scale = np.sqrt(np.array([16e-3 * 1.999, 1e-9 * 0.999]) / (1 - 0.999**2))
    np.testing.assert_allclose(state.w[0], [-0.1, 0.1] - 0.1 * mean / scale, rtol=1e-3)


def _state(w):
    zeros = tf.zeros_like(w)
    return attacks.carlini_wagner._State(w, zeros, zeros, tf.zeros([1], tf.bool))


def test_lbfgs_meets_the_conditions_of_a_minimum():
    # With linear logits the objective is convex: a projected gradient of zero is the minimum.
    attack = LBFGS(steps=25, epsilon=1e-3, early_stop=False)
    x = X.copy()
    x[:, 2] = float(W[2] > 0)  # a pixel that the box holds back
    y = tf.zeros(6, tf.int64)
    rows = bisection.Rows(
        tf.range(6),
        tf.constant(x),
        y,
        y + 1,
        tf.constant([0.01, 0.1, 1.0, 3.0, 10.0, 30.0]),
        *[tf.zeros(6)] * 2,
        tf.constant(x),
        tf.fill([6], np.inf),
    )
    seen = []
    search = attack._line_search

    def spy(*arguments):
        state, fooled = search(*arguments)
        seen.append(state)
        return state, fooled

    attack._line_search = spy
    attack._descend(linear, tf.constant(x), rows)
    values = np.stack([state.value for state in seen])
    assert (np.diff(values, axis=0) <= 1e-6).all()  # never uphill
    last = seen[-1]
    step = np.clip(last.point - last.gradient, 0.0, 1.0) - last.point.numpy()
    assert np.abs(step).max() < 2e-3


def test_arguments():
    assert attacks.get("cw:epsilon=1/2,steps=10").epsilon == 0.5
    assert attacks.get("lbfgs").target == "second" and attacks.get("cw").target is None
    assert attacks.get("lbfgs:target=3").target == 3
    for bad, message in {
        "cw:learning_rate=0": "`learning_rate` must be > 0",
        "cw:target=all": "Unknown `target` 'all'",
        "lbfgs:history=0": "`history` must be >= 1",
        "cw:norm=linf": "Unknown `norm` 'linf'",
    }.items():
        with pytest.raises(InputError, match=message):
            attacks.get(bad)


@both
def test_a_target_is_aimed_at(name):
    weights = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")

    def net(x):
        return tf.matmul(x, weights)

    y, aim = np.argmax(net(X), axis=1), np.argmin(net(X), axis=1)
    attack = BUILD[name](epsilon=100.0, target="least_likely", initial_c=1.0, bounds=(-9.0, 9.0))
    found = attack(net, X, y)
    assert (np.argmax(net(found), axis=1) != y).all()
    before, after = (losses.cross_entropy(aim, net(points)).numpy() for points in (X, found))
    assert (after < before).all()
