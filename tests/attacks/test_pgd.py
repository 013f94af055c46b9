"""PGD, FGSM and BIM where the answer is known: linear models, steps by hand, error texts."""

import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import attacks
from soar_tf.attacks import BIM, FGSM, PGD, targets
from soar_tf.errors import InputError
from soar_tf.ops import losses, random

W = np.array([2.0, -3.0, 0.5, 0.0], np.float32)
X = np.full((3, 4), 0.5, np.float32)
EPSILON = 0.1


@pytest.fixture(autouse=True)
def _eagerly():
    """A trace costs more than the few steps taken here; the contract tests run graphs."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def linear(weights=W, bias=-9.0):
    """Two classes, logits (0, w.x + b): the best attack on class 0 goes along w."""

    def logits_fn(x):
        other = tf.linalg.matvec(x, tf.constant(weights, tf.float32)) + bias
        return tf.stack([tf.zeros_like(other), other], axis=1)

    return logits_fn


def keys(count, seed=0):
    return random.example_keys(seed, tf.range(count), purpose="attack")


def smooth(x):
    generator = np.random.default_rng(1)
    first = tf.constant(generator.normal(size=(6, 16)), tf.float32)
    second = tf.constant(generator.normal(size=(16, 5)), tf.float32)
    return tf.tanh(x @ first) @ second


def labelled(network, count=12):
    x = np.random.default_rng(0).uniform(size=(count, 6)).astype("float32")
    return x, np.argmax(network(x), axis=1)


OPTIMAL = {"linf": EPSILON * np.sign(W), "l2": EPSILON * W / np.linalg.norm(W)}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "build",
    [
        FGSM,
        BIM,
        lambda **kw: PGD(steps=20, step_size=EPSILON, **kw),
        lambda **kw: PGD(steps=20, step_size=EPSILON, restarts=2, **kw),
        lambda **kw: PGD(steps=20, step_size=EPSILON, target="second", **kw),
    ],
    ids=["fgsm", "bim", "pgd", "pgd-restarts", "pgd-targeted"],
)
def test_the_optimum_of_a_linear_model_is_reached(build, norm):
    # d/dx of the cross-entropy of class 0 is p_1 w, so the optimum is epsilon along w (l2) or its
    # signs (linf); where w is zero a random start stays.
    attack = build(epsilon=EPSILON, norm=norm)
    found = attack(linear(), X, np.zeros(3, int)).numpy() - X
    np.testing.assert_allclose(found[:, :3], np.tile(OPTIMAL[norm][:3], (3, 1)), atol=2e-4)
    opposite = attack(linear(bias=9.0), X, np.ones(3, int)).numpy() - X
    np.testing.assert_allclose(opposite[:, :3], np.tile(-OPTIMAL[norm][:3], (3, 1)), atol=2e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_optimum_breaks_exactly_the_examples_within_reach(norm):
    # The margin at x is |b + w.x|; an attack of radius epsilon moves it by epsilon times the dual
    # norm of w, so examples at 0.9 and 1.1 of that distance are and are not broken.
    reach = EPSILON * np.linalg.norm(W, 1 if norm == "linf" else 2)
    bias = -W @ X[0] - reach * np.array([0.9, 1.1])
    # The bias travels as a fifth pixel, which has no gradient.
    x = np.concatenate([np.repeat(X[:1], 2, axis=0), bias[:, None].astype("float32")], axis=1)

    def net(x):
        other = tf.linalg.matvec(x[:, :4], tf.constant(W)) + tf.stop_gradient(x[:, 4])
        return tf.stack([tf.zeros_like(other), other], axis=1)

    box = (-4.0, 4.0)
    for attack in (FGSM, BIM):
        found = attack(EPSILON, norm, bounds=box)(net, x, np.zeros(2, int))
        np.testing.assert_array_equal(np.argmax(net(found), axis=1), [1, 0])


def test_one_step_by_hand():
    attack = PGD(epsilon=0.1, step_size=0.08)
    gradient = tf.constant([[2.0, -5.0, 0.0, 1.0]])
    x, x_adv = tf.constant([[0.5, 0.5, 0.5, 0.95]]), tf.constant([[0.55, 0.5, 0.45, 0.95]])
    # .63 -> .6 (ball); .42; .45; 1.03 -> 1.03 (ball: up to 1.05) -> 1 (box)
    np.testing.assert_allclose(attack.step(x_adv, x, gradient), [[0.6, 0.42, 0.45, 1.0]], rtol=1e-6)
    attack = PGD(epsilon=0.1, norm="l2", step_size=0.2)
    # From x + (.1, 0) by .2 along (0, 1): (.1, .2) of norm .2236 -> .1 (1, 2) / sqrt(5).
    points = (tf.constant([point]) for point in ([0.6, 0.5], [0.5, 0.5], [0.0, 3.0]))
    found = attack.step(*points)
    np.testing.assert_allclose(found, 0.5 + 0.1 * np.array([[1, 2]]) / np.sqrt(5), rtol=1e-6)


def test_perturb_is_start_and_steps():
    net, y = linear(bias=0.0), tf.zeros(3, tf.int64)
    attack = PGD(epsilon=0.1, steps=3, step_size=0.03)
    start = attack.start(tf.constant(X), random.derive(keys(3), 0)).numpy()
    assert 0.0 < np.abs(start - X).max() <= 0.1
    expected = np.clip(start + 3 * 0.03 * np.sign(W), X - 0.1, X + 0.1)
    found = attack.perturb(net, tf.constant(X), y, keys(3))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_perturb_in_graph_and_xla():
    attack = PGD(epsilon=0.1, steps=4)
    x, y = tf.constant(X), tf.zeros(3, tf.int64)

    def run(x, y, k):
        return attack.perturb(linear(), x, y, k)

    expected = run(x, y, keys(3))
    tf.config.run_functions_eagerly(False)
    for jit in (False, True):
        found = tf.function(run, jit_compile=jit)(x, y, keys(3))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_perturb_has_no_gradient_and_follows_the_given_loss():
    x, y = tf.constant(X), tf.constant([[1.0, 0.0]] * 3)  # labels in the loss's own form

    def squared(y, logits):
        return tf.reduce_sum(tf.square(y - logits), axis=1)

    with tf.GradientTape() as tape:
        tape.watch(x)
        found = FGSM(0.1).perturb(linear(bias=0.0), x, y, keys(3), loss_fn=squared)
    # (0 - w.x)^2 grows with w.x where it is positive: w.x = -.25 here, so down along w.
    np.testing.assert_allclose(found - X, np.tile(-0.1 * np.sign(W), (3, 1)), atol=1e-6)
    assert tape.gradient(found, x) is None


def test_default_step_sizes():
    assert PGD().effective_step_size == pytest.approx(2 / 255)
    assert PGD(epsilon=0.1, steps=100).effective_step_size == pytest.approx(0.025)
    assert PGD(epsilon=0.5, norm="l2", steps=100).effective_step_size == pytest.approx(0.0125)
    assert PGD(step_size="1/255").effective_step_size == pytest.approx(1 / 255)


def test_bim_starts_at_the_image():
    assert BIM().random_start is False
    np.testing.assert_array_equal(BIM().start(tf.constant(X), keys(3)), X)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_only_help(norm):
    net = smooth
    x, y = labelled(net, 60)
    accuracy = []
    for restarts in (1, 2, 5):
        epsilon = {"linf": 0.12, "l2": 0.25}[norm]
        attack = PGD(epsilon=epsilon, norm=norm, steps=2, restarts=restarts)
        accuracy.append(np.argmax(net(attack(net, x, y)), axis=1) == y)
    # Point by point: the first start is the same, so what it breaks stays broken.
    assert not (accuracy[1] & ~accuracy[0]).any() and not (accuracy[2] & ~accuracy[1]).any()
    assert accuracy[0].mean() > accuracy[2].mean()


def test_restarts_in_training_keep_the_largest_loss():
    net = smooth
    x, y = labelled(net)
    x, y = tf.constant(x), tf.constant(y)
    singles = []
    for restart in range(3):
        attack = PGD(epsilon=0.1, steps=2)
        derived = random.derive(keys(12), restart)
        start = attack.start(x, derived)
        for _ in range(2):
            with tf.GradientTape() as tape:
                tape.watch(start)
                loss = losses.cross_entropy(y, net(start))
            start = attack.step(start, x, tape.gradient(loss, start))
        singles.append(losses.cross_entropy(y, net(start)))
    best = PGD(epsilon=0.1, steps=2, restarts=3).perturb(net, x, y, keys(12))
    reached = losses.cross_entropy(y, net(best))
    np.testing.assert_allclose(reached, np.max(singles, axis=0), rtol=1e-4)


def bump(x):
    """Class 1 only where .54 < x < .58; the slope of the margin is positive everywhere."""
    x = x[:, 0]
    inside = tf.cast((x > 0.54) & (x < 0.58), tf.float32)
    other = 0.1 * x - 1.0 + 2.0 * tf.stop_gradient(inside)
    return tf.stack([tf.zeros_like(x), other], axis=1)


def test_search_returns_the_first_misclassified_iterate():
    # Iterates .52, .54, .56, ..., .70: the third is misclassified, later ones are right again.
    attack = BIM(epsilon=0.2, steps=10, step_size=0.02)
    x, y = np.full((1, 1), 0.5, np.float32), np.zeros(1, int)
    np.testing.assert_allclose(attack(bump, x, y), [[0.56]], atol=1e-6)
    # Training takes the fixed number of steps.
    last = attack.perturb(bump, tf.constant(x), tf.constant(y), keys(1))
    np.testing.assert_allclose(last, [[0.7]], atol=1e-6)


def test_search_costs_what_the_survivors_cost():
    seen, net = [], linear(bias=0.25)

    def counted(x):
        seen.append(len(x))
        return net(x)

    # The margin at X is 0, and a step of .02 raises it by .02 |w|_1 = .11: 2, 3 and 5 steps.
    x = np.stack([X[0] - shift * np.sign(W) for shift in (0.03, 0.05, 0.09)])
    found = BIM(epsilon=0.2, steps=10, step_size=0.02)(counted, x, np.zeros(3, int))
    assert (np.argmax(net(found), axis=1) == 1).all()
    assert seen == [3, 3, 3, 3, 2, 1, 1]  # the clean pass, then the iterates 0 to 5


def test_an_l1_attack_moves_the_steepest_pixel_that_the_box_lets_move():
    # The optimum in the l1 ball of 0.8 from 0.5: pixel 0 to the edge (0.5), the rest in pixel 1.
    slopes = np.array([3.0, -2.0, 1.0], "float32")

    def network(x):
        other = tf.linalg.matvec(x, tf.constant(slopes))
        return tf.stack([tf.zeros_like(other), other], axis=1)

    x = np.full((2, 3), 0.5, "float32")
    attack = PGD(epsilon=0.8, norm="l1", steps=60, step_size=0.05, random_start=False)
    found = attack.perturb(network, tf.constant(x), tf.zeros(2, tf.int64), keys(2)).numpy() - x
    assert np.abs(found).sum(axis=1).max() <= 0.8 + 1e-6
    # Steps of 0.05 leave the edge by half of it at a time.
    np.testing.assert_allclose(found, np.tile([0.5, -0.3, 0.0], (2, 1)), atol=0.06)


def test_an_l2_attack_is_not_stopped_by_a_tiny_gradient():
    net = linear(W * 1e-20, bias=-50.0)
    found = PGD(epsilon=0.1, norm="l2", random_start=False)(net, X, np.zeros(3, int))
    assert np.isfinite(found).all()


# Targets.

LOGITS = tf.constant([[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, 1.0, 2.0]])
LABELS = tf.constant([0, 1], tf.int64)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("second", [[2], [3]]),
        ("least_likely", [[3], [0]]),
        ("next", [[1], [2]]),
        ("all", [[2, 1, 3], [3, 2, 0]]),
        (1, [[1], [3]]),  # the second example is of class 1
        (3, [[3], [3]]),
    ],
)
def test_targets(target, expected):
    found = targets.choose(target, lambda x: LOGITS, tf.zeros([2, 1]), LABELS, keys(2))
    np.testing.assert_array_equal(found, expected)


def test_next_wraps_around():
    y = tf.constant([3, 2], tf.int64)
    np.testing.assert_array_equal(
        targets.choose("next", lambda x: LOGITS, tf.zeros([2, 1]), y, keys(2)), [[0], [3]]
    )


def test_random_targets_are_uniform_over_the_other_classes():
    n = 3000
    y = tf.constant(np.arange(n) % 4)
    logits = tf.tile(LOGITS[:1], [n, 1])
    found = targets.choose("random", lambda x: logits, tf.zeros([n, 1]), y, keys(n)).numpy()[:, 0]
    assert (found != y.numpy()).all()
    offsets = np.bincount((found - y.numpy()) % 4, minlength=4)[1:]
    assert np.abs(offsets - n / 3).max() < 5 * np.sqrt(n * 2 / 9)


@pytest.mark.parametrize("build", [FGSM, BIM, PGD])
def test_a_targeted_attack_raises_the_target(build):
    net = smooth
    x, y = labelled(net)
    attack = build(epsilon=0.02, target="least_likely")
    found = attack(net, x, y)
    aim = np.argmin(net(x), axis=1)
    before, after = (losses.cross_entropy(aim, net(point)).numpy() for point in (x, found))
    assert (after < before).all()


def test_all_targets_are_at_least_as_strong_as_each_of_them():
    net = smooth
    x, y = labelled(net, 40)
    single = PGD(epsilon=0.08, steps=4, random_start=False, target="second")
    every = PGD(epsilon=0.08, steps=4, random_start=False, target="all")
    right = [np.argmax(net(attack(net, x, y)), axis=1) == y for attack in (single, every)]
    assert not (right[1] & ~right[0]).any() and right[1].sum() < 40
    # In training the run with the largest loss is kept.
    loss = [
        losses.cross_entropy(y, net(attack.perturb(net, tf.constant(x), tf.constant(y), keys(40))))
        for attack in (single, every)
    ]
    assert (loss[1].numpy() >= loss[0].numpy() - 1e-6).all()


# Names and arguments.


def test_parsing():
    attack = attacks.get("pgd:steps=50,epsilon=4/255")
    assert (attack.steps, attack.norm) == (50, "linf") and attack.epsilon == pytest.approx(4 / 255)
    attack = attacks.get("l2pgd40")
    assert (attack.steps, attack.norm) == (40, "l2") and attack.epsilon == pytest.approx(60 / 255)
    attack = attacks.get("pgd7: restarts = 3 , random_start=false")
    assert (attack.steps, attack.restarts, attack.random_start) == (7, 3, False)
    assert attacks.get("pgd:target=least_likely").target == "least_likely"
    assert attacks.get("fgsm:target=3").target == 3
    assert attacks.get(attack) is attack


def test_defaults_apply_where_the_name_sets_nothing():
    assert attacks.get("pgd20", epsilon=0.1).epsilon == 0.1
    assert attacks.get("pgd20:epsilon=0.2", epsilon=0.1).epsilon == 0.2
    # An epsilon meant for linf says nothing about l2.
    assert attacks.get("l2pgd20", epsilon=0.1).epsilon == pytest.approx(60 / 255)
    assert attacks.get("pgd:norm=l2", epsilon=0.1).epsilon == pytest.approx(8 / 255)


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("pgd20x", "Unknown attack 'pgd20x'. Did you mean 'pgd20'? Allowed: "),
        ("pgd:stepz=5", "Unknown argument of attack 'pgd': 'stepz'. Did you mean 'steps'? "),
        (
            "pgd:epsilon=8",
            "`epsilon` must be >= 0 and <= 1. Received: '8'. "
            "Pixels lie in [0, 1]: write 8/255 for 0-255.",
        ),
        (
            "pgd:epsilon=nan",
            "`epsilon` must be a finite number, or a fraction such as '8/255'. Received: 'nan'.",
        ),
        (
            "pgd:epsilon=abc",
            "`epsilon` must be a finite number, or a fraction such as '8/255'. Received: 'abc'.",
        ),
        (
            "pgd:epsilon=1/0",
            "`epsilon` must be a finite number, or a fraction such as '8/255'. Received: '1/0'.",
        ),
        ("pgd:epsilon=-1", "`epsilon` must be >= 0 and <= 1. Received: '-1'."),
        ("pgd:norm=l2,epsilon=-1", "`epsilon` must be >= 0. Received: '-1'."),
        (
            "pgd:steps",
            "Attack arguments are written name:key=value,key=value. Received: 'pgd:steps'.",
        ),
        ("pgd:steps=0", "`steps` must be >= 1. Received: '0'."),
        ("pgd:steps=2.5", "`steps` must be an integer. Received: '2.5'."),
        ("pgd:restarts=0", "`restarts` must be >= 1."),
        ("pgd:step_size=-0.1", "`step_size` must be > 0. Received: '-0.1'."),
        ("pgd:norm=lnf", "Unknown `norm` 'lnf'. Did you mean 'linf'? Allowed: l1, l2, linf."),
        ("pgd:random_start=maybe", "`random_start` must be true or false. Received: 'maybe'."),
        ("pgd:target=secnd", "Unknown `target` 'secnd'. Did you mean 'second'? Allowed: "),
        ("pgd:target=-1", "`target` must be >= 0."),
    ],
)
def test_bad_names_and_arguments(identifier, message):
    with pytest.raises(InputError) as error:
        attacks.get(identifier)
    assert str(error.value).startswith(message)


def test_bad_objects():
    with pytest.raises(InputError, match=r"`attack` must be a name or an Attack\. Received: 20"):
        attacks.get(20)
    with pytest.raises(InputError, match="`epsilon` must be >= 0 and <= 1"):
        soar_tf.attacks.PGD(epsilon=8)


def test_a_target_beyond_the_classes_is_refused():
    with pytest.raises(InputError, match=r"from 0 to 1 of the network\. Received: 2\."):
        PGD(target=2)(linear(), X, np.zeros(3, int))


def test_a_targeted_attack_needs_integer_labels():
    with pytest.raises(InputError, match="needs integer labels"):
        PGD(target="next").perturb(linear(), tf.constant(X), tf.zeros([3, 2]), keys(3))
