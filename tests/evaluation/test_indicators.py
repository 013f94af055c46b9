"""Indicators of attack failure: on networks built to show each, and on one that shows none."""

import json

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.attacks import PGD
from soar_tf.errors import InputError
from soar_tf.evaluation import attack_indicators, masking_report

NAMES = ("zero_gradient", "noisy_loss", "loss_falls", "not_converged", "silent_success")
EPSILON = 0.05
WEIGHTS = np.random.default_rng(0).choice([-1.0, 1.0], 64).astype("float32") / 64
X = np.random.default_rng(1).uniform(0.3, 0.7, (30, 8, 8, 1)).astype("float32")
ZEROS = np.zeros(30, "int64")


def score(x):
    return tf.linalg.matvec(tf.reshape(x, [-1, 64]), tf.constant(WEIGHTS))


def logits(margin):
    """Logits of two classes; class 0 wins where the margin is positive."""
    return tf.stack([margin, tf.zeros_like(margin)], axis=1)


def far(x):
    """A linear network whose margin the ball cannot turn: |score| is at most .75."""
    return logits(2.0 + 10.0 * score(x) * 0.2)


def found_by(network, attack=None, **arguments):
    """The number of images that each indicator names, without those that name none."""
    attack = PGD(epsilon=EPSILON, steps=20) if attack is None else attack
    found = attack_indicators(network, X, ZEROS, attack, batch_size=11, **arguments)
    for flags in found.columns().values():
        assert (flags <= found.failed).all()
    return found, {name: n for name, flags in found.columns().items() if (n := int(flags.sum()))}


def test_an_honest_network_shows_none():
    found, named = found_by(far)
    assert found.failed.all() and not named
    assert all(
        line.startswith("0 of the 30 images that pgd does not break: ") for line in found.lines()
    )


def test_images_that_break_have_no_indicator():
    # The ball moves the score by 64 |w| epsilon = .05.
    shift = 0.05 - np.median(score(X))
    clean = score(X).numpy() + shift
    found, named = found_by(lambda x: logits(score(x) + shift))
    np.testing.assert_array_equal(found.failed, clean > EPSILON)
    assert 0 < found.failed.sum() < (clean > 0).sum() and not named


@pytest.mark.parametrize("kind", ["stopped", "rounded", "nan"])
def test_zero_gradients(kind):
    network = {
        "stopped": lambda x: far(tf.stop_gradient(x)),
        "rounded": lambda x: tf.round(far(x)),
        "nan": tf.custom_gradient(lambda x: (far(x), lambda _: x * np.nan)),
    }[kind]
    _, named = found_by(network)
    assert named == {"zero_gradient": 30}


def test_a_jagged_loss_is_noisy():
    def network(x):
        return logits(3.0 + tf.sin(1e4 * score(x)))

    _, named = found_by(network)
    assert named["noisy_loss"] == 30 and "zero_gradient" not in named


def test_a_random_network_is_noisy():
    def network(x):
        # Another margin for every pixel change, but the same in the clean pass.
        bits = tf.bitcast(tf.reduce_sum(tf.reshape(x, [-1, 64]), axis=1), tf.int32)
        return logits(far(x)[:, 0] + tf.cast(bits % 997, tf.float32) / 997 - 0.5)

    assert found_by(network)[1]["noisy_loss"] >= 25


def test_flipped_gradients_make_the_loss_fall():
    def network(x):
        return tf.stop_gradient(2.0 * far(x)) - far(x)

    _, named = found_by(network)
    assert named == {"loss_falls": 30}


def test_steps_that_are_too_short_do_not_converge():
    short = PGD(epsilon=EPSILON, steps=20, step_size=EPSILON / 100, random_start=False)
    _, named = found_by(far, short)
    assert named["not_converged"] == 30 and not {"zero_gradient", "loss_falls"} & set(named)
    # With steps enough it stops at the ball's corner, long before the last ten.
    whole = PGD(epsilon=EPSILON, steps=20, step_size=EPSILON / 4, random_start=False)
    assert not found_by(far, whole)[1]


def test_an_adversarial_step_that_is_left_again():
    start = tf.reduce_mean(tf.constant(X), axis=(1, 2, 3)).numpy()

    def network(x):
        """Wrong only between .3 and .6 of the radius; its gradient pushes on and out."""
        moved = tf.reduce_mean(x, axis=(1, 2, 3))
        nearest = tf.reduce_min(tf.abs(moved[:, None] - start[None] - 0.45 * EPSILON), axis=1)
        value = tf.where(nearest < 0.15 * EPSILON, -2.0, 2.0)
        return logits(tf.stop_gradient(value + moved) - moved)

    one = X[:1] * 0 + X[:1]
    start = start[:1]
    attack = PGD(epsilon=EPSILON, steps=8, step_size=EPSILON / 4, random_start=False)
    found = attack_indicators(network, one, ZEROS[:1], attack)
    assert found.failed.all() and found.silent_success.all()


def test_other_norms_and_one_step():
    l2 = PGD(epsilon=0.1, norm="l2", steps=40)
    assert not found_by(far, l2)[1].get("zero_gradient")
    found, _ = found_by(far, PGD(epsilon=EPSILON, steps=1))
    assert not found.not_converged.any()


def test_batches_do_not_matter():
    network = lambda x: tf.stop_gradient(2.0 * far(x)) - far(x)  # noqa: E731
    one = attack_indicators(network, X, ZEROS, "pgd5:epsilon=0.05", batch_size=30)
    two = attack_indicators(network, X, ZEROS, "pgd5:epsilon=0.05", batch_size=7)
    for name, flags in one.columns().items():
        np.testing.assert_array_equal(flags, two.columns()[name])


def test_other_attacks_are_refused():
    for attack in ("apgd-ce", "fgsm", "pgd:target=second"):
        with pytest.raises(InputError, match="must be PGD without a target"):
            attack_indicators(far, X, ZEROS, attack)


def test_the_masking_report_sums_them_up():
    report = masking_report(
        lambda x: far(tf.stop_gradient(x)), X, ZEROS, epsilon=EPSILON, steps=4, queries=5
    )
    assert report.indicators.zero_gradient.all()
    stored = json.loads(json.dumps(report.to_dict()))["indicators"]
    assert (stored["attack"], stored["failed"], stored["n"]) == ("PGD-4", 30, 30)
    assert [entry["name"] for entry in stored["indicators"]] == list(NAMES)
    first = stored["indicators"][0]
    assert first["images"] == list(range(30))
    assert first["sentence"].startswith(
        "30 of the 30 images that PGD-4 does not break: more than half"
    )
