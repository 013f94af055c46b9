"""APGD against hand-computed steps, and the book-keeping of its step size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.attacks import apgd, apgd_steps, working_set
from soar_tf.ops import losses


class StartAt(apgd.APGD):
    """APGD from a given point, for steps computed by hand."""

    def start(self, x, keys):
        return tf.constant(self.first, tf.float32) + 0.0 * x


def linear(weights, bias):
    """Logits (0, w.x + b) for two classes."""

    def logits_fn(x):
        other = tf.linalg.matvec(x, tf.constant(weights, tf.float32)) + bias
        return tf.stack([tf.zeros_like(other), other], axis=1)

    return logits_fn


def recording(logits_fn, log):
    """The same function; every batch of logits that it gives is appended to `log`."""

    def recorded(x):
        logits = logits_fn(x)
        done = tf.numpy_function(lambda value: log.append(value.copy()), [logits], [])
        with tf.control_dependencies([done]):
            return tf.identity(logits)

    return recorded


@pytest.fixture
def smooth():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(5)]
    )


def test_checkpoints_at_100_steps_are_the_papers():
    assert apgd_steps.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 1000])
def test_checkpoints_lie_within_any_number_of_steps(steps):
    found = apgd_steps.checkpoints(steps)
    assert found == sorted(set(found)) and found[0] >= 1 and found[-1] <= steps
    windows = np.diff([0, *found])
    assert (np.diff(windows) <= 0).all() and windows[-1] >= max(6 * steps // 100, 1)


def test_two_l2_steps_by_hand():
    # x = (.5, .5), epsilon = .1, s = .2, direction v = (0, 1) everywhere; x_0 = (.6, .5).
    # z_0 = P(.6, .7): (.1, .2) has norm .223607, so x_1 - x = (.044721, .089443).
    # z_1 = P(x_1 + .2 v): (.044721, .289443) has norm .292877 -> (.015270, .098827).
    # x_2 = P(x_1 + .75 (z_1 - x_1) + .25 (x_1 - x_0)) with
    #   .75 (z_1 - x_1) = (-.022089, .007038), .25 (x_1 - x_0) = (-.013820, .022361),
    #   sum (.008813, .118842) of norm .119168 -> (.007395, .099726).
    attack = StartAt(epsilon=0.1, norm="l2", steps=2)
    attack.first = [[0.6, 0.5]]
    # The bias keeps the example correct, so that it ends at its best point, x_2.
    found = attack(linear([0.0, 1.0], -9.0), np.full((1, 2), 0.5), np.array([0]))
    np.testing.assert_allclose(found, [[0.507395, 0.599726]], atol=2e-6)


def test_two_linf_steps_by_hand():
    # v = (1, -1), x = (.5, .5), x_0 = (.42, .55), epsilon = .1: z_0 = P(.62, .35) = (.6, .4) = x_1;
    # z_1 = x_1 and the momentum (.045, -.0375) leaves the ball, so x_2 = x_1.
    attack = StartAt(epsilon=0.1, steps=2)
    attack.first = [[0.42, 0.55]]
    found = attack(linear([2.0, -3.0], -9.0), np.full((1, 2), 0.5), np.array([0]))
    np.testing.assert_allclose(found, [[0.6, 0.4]], atol=1e-6)


def test_the_step_is_halved_per_example():
    # One example per rule; the window has 4 steps, rho = .75, so 3 rises are too few.
    attack = apgd.APGD(epsilon=0.5, steps=20, bounds=(-9.0, 9.0))
    zeros = tf.zeros([4, 1])
    rows = attack._first_rows(tf.range(4), zeros, tf.range(4), tf.range(4), zeros, 0.5)
    rows = rows._replace(
        memory=rows.memory._replace(
            rises=tf.constant([3.0, 4.0, 4.0, 4.0]),
            checked_loss=tf.constant([1.0, 1.0, 2.0, 2.0]),
            halved=tf.constant([False, False, False, True]),
            last_loss=tf.constant([9.0, 9.0, 9.0, 9.0]),
        ),
        best_loss=tf.constant([2.0, 2.0, 2.0, 2.0]),
        best=tf.constant([[0.2], [0.2], [0.2], [0.2]]),
        best_gradient=-tf.ones([4, 1]),
    )
    after = attack._advance(5, 4, rows, tf.ones([4]), tf.ones([4, 1]), 0.5)
    # Too few rises; fine; best loss stuck; stuck, but the step was halved last time.
    np.testing.assert_array_equal(after.memory.halved, [True, False, True, False])
    np.testing.assert_allclose(after.memory.step, [0.5, 1.0, 0.5, 1.0])
    np.testing.assert_allclose(after.memory.previous[:, 0], [0.2, 0.0, 0.2, 0.0])
    # From the best point .2, along its gradient -1: z = -.3, then .2 - .75 * .5 + .25 * .2; from
    # the point 0 along 1: z = .5 (the ball), then .75 * .5.
    np.testing.assert_allclose(after.point[:, 0], [-0.125, 0.375, -0.125, 0.375], atol=1e-6)
    np.testing.assert_array_equal(after.memory.rises, np.zeros(4))
    np.testing.assert_array_equal(after.memory.checked_loss, np.full(4, 2.0))


def test_between_checkpoints_rises_are_counted_over_the_previous_iterate():
    attack = apgd.APGD(epsilon=0.5, steps=20)
    zeros = tf.zeros([2, 1])
    rows = attack._first_rows(tf.range(2), zeros, tf.range(2), tf.range(2), zeros, 0.5)
    for k, values in enumerate([(5.0, 1.0), (3.0, 2.0), (4.0, 2.0)]):
        rows = attack._advance(k, 0, rows, tf.constant(values), tf.ones([2, 1]), 0.5)
    # First: a fall, then a rise that stays below the best. Second: a rise, then a tie.
    np.testing.assert_array_equal(rows.memory.rises, [1.0, 1.0])
    np.testing.assert_array_equal(rows.best_loss, [5.0, 2.0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_unbroken_end_at_the_best_point_seen(smooth, norm):
    log = []

    def unbreakable(x):
        logits = smooth(x)
        return logits + tf.one_hot(tf.zeros(tf.shape(x)[0], tf.int32), 5) * 50.0

    attack = apgd.APGD(epsilon=0.3, norm=norm, steps=25)
    x, y = np.random.default_rng(0).uniform(size=(3, 6)).astype("float32"), np.zeros(3, "int64")
    found = attack(recording(unbreakable, log), x, y)
    # The clean pass, then one pass an iteration and a last one without gradient: no more.
    assert len(log) == 1 + 25 + 1
    losses_seen = np.stack([losses.cross_entropy(y, tf.constant(logits)) for logits in log[1:]])
    best = losses.cross_entropy(y, unbreakable(found))
    np.testing.assert_allclose(best, losses_seen.max(axis=0), rtol=1e-5)


def test_broken_examples_leave_at_their_first_misclassified_iterate(smooth):
    log = []
    x = np.random.default_rng(0).uniform(size=(8, 6)).astype("float32")
    y = np.argmax(smooth(x), axis=1)
    found = apgd.APGD(epsilon=0.4, steps=15)(recording(smooth, log), x, y)
    sizes = [len(logits) for logits in log]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] == 8
    # The batch loses exactly the examples whose iterate of that pass is misclassified: those that
    # are still in it never are, but for the last pass.
    broken = np.argmax(smooth(found), axis=1) != y
    assert broken.sum() >= 8 - sizes[-1] > 0
    seen = np.concatenate([logits.max(axis=1) for logits in log[1:]])
    for logits in smooth(found).numpy()[broken]:
        assert np.isclose(seen, logits.max(), atol=1e-5).any()


def test_averaging_gradients_of_a_fixed_network_changes_nothing(smooth):
    x = np.random.default_rng(0).uniform(size=(4, 6)).astype("float32")
    y = np.argmax(smooth(x), axis=1)
    once = apgd.APGD(epsilon=0.05, steps=5, norm="l2")(smooth, x, y)
    log = []
    attack = apgd.APGD(epsilon=0.05, steps=5, norm="l2", eot_iter=4)
    averaged = attack(recording(smooth, log), x, y)
    np.testing.assert_allclose(once, averaged, atol=1e-5)
    assert len(log) == 1 + 5 * 4 + 1


def test_targets_are_the_likeliest_other_classes():
    logits = tf.constant([[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, 1.0, 2.0]])
    targets = working_set.ranked_targets(tf.constant([0, 1], tf.int64), logits, 2)
    np.testing.assert_array_equal(targets, [[2, 1], [3, 2]])


def test_targeted_runs_need_no_more_than_the_other_classes(smooth):
    log = []

    def unbreakable(x):
        return smooth(x) + tf.one_hot(tf.zeros(tf.shape(x)[0], tf.int32), 5) * 50.0

    attack = soar_tf.attacks.get("apgd-t", steps=3, restarts=2)
    attack(recording(unbreakable, log), np.full((2, 6), 0.5), np.zeros(2, "int64"))
    # Clean pass, targets, and 4 classes x 2 restarts in parallel, in 3 + 1 passes. The first of
    # these does not use the targets, so TensorFlow may run it before their pass.
    assert sorted(map(len, log)) == [2, 2] + [2 * 4 * 2] * (3 + 1)


def test_registered_names_set_the_loss():
    assert soar_tf.attacks.get("apgd-ce").loss == "ce"
    assert soar_tf.attacks.get("apgd-dlr:norm=l2,epsilon=0.5").loss == "dlr"
    assert soar_tf.attacks.get("apgd-t").targets == 9
    with pytest.raises(soar_tf.errors.InputError, match="loss"):
        apgd.APGD(loss="dlrr")


def test_the_wider_balls_of_l1_take_three_tenths_of_the_steps_each():
    rule = apgd_steps.Sparse(apgd.APGD(norm="l1", epsilon=1.0))
    assert rule.wider == (3.0, 2.0)
    assert [rule.early_steps(n) for n in (1, 2, 3, 10, 25, 100)] == [0, 0, 1, 3, 8, 30]
    # Every fourth of a hundred steps is a checkpoint; every one of the 30 or 40 of a ball is.
    assert np.flatnonzero(rule.windows(100)).tolist() == list(range(4, 101, 4))
    assert rule.windows(40).tolist() == [0] + [1] * 40


def test_two_l1_steps_by_hand():
    # Slopes (3, 2, -1), x = (.5, .5, .9), epsilon = .3, from x_0 = (.6, .5, .9): one coordinate
    # differs, so ceil(1 / 1.5) = 1 moves, by the step .3: (.9, .5, .9) projects to (.8, .5, .9).
    # There the support is still 1, not below .95 of 1, so the step shrinks to .3 / 1.5 = .2: the
    # first coordinate moves to 1.0 and back to .8. The loss stays at its best.
    attack = StartAt(epsilon=0.3, norm="l1", steps=2)
    attack.first = [[0.6, 0.5, 0.9]]
    x = np.array([[0.5, 0.5, 0.9]])
    found = attack(linear([3.0, 2.0, -1.0], -9.0), x, np.array([0]))
    np.testing.assert_allclose(found, [[0.8, 0.5, 0.9]], atol=1e-6)
    # From x_0 = (.6, .6, .9) two coordinates move by .15 each; the projection halves nothing:
    # (.75, .75, .9) moves by (.25, .25), .1 too much each.
    attack = StartAt(epsilon=0.3, norm="l1", steps=1)
    attack.first = [[0.6, 0.6, 0.9]]
    found = attack(linear([3.0, 2.0, -1.0], -9.0), x, np.array([0]))
    np.testing.assert_allclose(found, [[0.65, 0.65, 0.9]], atol=1e-6)


def test_l1_checkpoints_by_hand():
    # Best points that change 9 coordinates of 10 (sparser), 10 of 10, and none of none.
    attack = apgd.APGD(epsilon=2.0, norm="l1", steps=20, bounds=(-9.0, 9.0))
    x = tf.zeros([3, 10])
    rows = attack._first_rows(tf.range(3), x, tf.range(3), tf.range(3), x, 2.0)
    np.testing.assert_array_equal(rows.memory.support, [0, 0, 0])
    np.testing.assert_array_equal(rows.memory.step, [2.0, 2.0, 2.0])
    best = tf.constant([[0.1] * 9 + [0.0], [0.1] * 10, [0.0] * 10])
    memory = apgd_steps.SparseMemory(tf.constant([0.9, 0.9, 0.25]), tf.constant([10, 10, 0]))
    rows = rows._replace(best=best, memory=memory, best_loss=tf.zeros([3]))
    memory, back = attack._rule.reconsider(1, rows, 2.0)
    np.testing.assert_array_equal(back, [True, False, False])
    np.testing.assert_array_equal(memory.support, [9, 10, 0])
    # Full steps again; .9 / 1.5; and never below a tenth of the radius.
    np.testing.assert_allclose(memory.step, [2.0, 0.6, 0.2])
    # ceil(9 / 1.5) = 6, ceil(10 / 1.5) = 7, and at least one coordinate moves.
    gradient = tf.tile(tf.range(10.0)[None] + 1.0, [3, 1])
    moved = attack._rule.move(0, rows._replace(memory=memory, point=x), gradient, 2.0).point
    np.testing.assert_array_equal(np.count_nonzero(moved, axis=1), [6, 7, 1])
    np.testing.assert_allclose(np.abs(moved).sum(axis=1), [2.0, 0.6, 0.2], rtol=1e-6)


def test_l1_runs_start_in_the_wide_ball_and_count_only_points_of_the_ball(smooth):
    log = []

    def unbreakable(x):
        return smooth(x) + tf.one_hot(tf.zeros(tf.shape(x)[0], tf.int32), 5) * 50.0

    def watched(x):
        done = tf.numpy_function(lambda value: log.append(value.copy()), [x], [])
        with tf.control_dependencies([done]):
            return unbreakable(tf.identity(x))

    attack = apgd.APGD(epsilon=0.4, norm="l1", steps=10)
    x, y = np.random.default_rng(0).uniform(size=(3, 6)).astype("float32"), np.zeros(3, "int64")
    found = attack(watched, x, y).numpy()
    sizes = [np.abs(points - x).sum(axis=1).max() for points in log[1:]]
    # 3 steps and a last look at 3 and at 2 times the radius, 4 steps and a last look at the radius.
    assert len(sizes) == 4 + 4 + 5
    for radius, own in ((1.2, sizes[:4]), (0.8, sizes[4:8]), (0.4, sizes[8:])):
        assert max(own) <= radius + 1e-5 and max(own) > 0.9 * radius
    best = losses.cross_entropy(y, unbreakable(tf.constant(found)))
    seen = np.stack([losses.cross_entropy(y, unbreakable(tf.constant(p))) for p in log[9:14]])
    np.testing.assert_allclose(best, seen.max(axis=0), rtol=1e-5)


def test_sparse_steps_beat_dense_ones_in_l1():
    # On a linear network the best point of the ball moves the steepest coordinate as far as the
    # box lets it, then the next one.
    slopes = np.array([0.5, 3.0, -2.5, 1.0, 0.2, 0.1])
    x = np.array([[0.5, 0.7, 0.4, 0.5, 0.5, 0.5]])
    attack = apgd.APGD(epsilon=0.9, norm="l1", steps=60)
    found = attack(linear(slopes, -9.0), x, np.array([0])).numpy()
    # .3 on the second, .4 on the third, the rest (.2) on the fourth.
    np.testing.assert_allclose(found - x, [[0, 0.3, -0.4, 0.2, 0, 0]], atol=2e-2)


def test_rho_has_no_meaning_in_l1():
    with pytest.raises(soar_tf.errors.InputError, match="`rho` must be 0.75 for l1"):
        apgd.APGD(norm="l1", rho=0.5)
    assert apgd.APGD(norm="l1").epsilon == 12.0
