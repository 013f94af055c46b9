"""The masking report: networks that mask by construction are flagged, honest ones pass."""

import json

import numpy as np
import pytest
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.evaluation import intervals, masking_checks, masking_report
from soar_tf.evaluation.masking import Subject

# The mean of the first three pixels decides, at 0.5. The fourth counts for nothing.
EPSILON = 0.15
X = np.linspace(0.02, 0.98, 48, dtype="float32")[:, None, None, None] * np.ones((1, 2, 2, 1), "f")
X[:, 1, 1] = 0.5
Y = (X[:, 0, 0, 0] > 0.5).astype(int)


def honest(x, scale=5.0):
    score = scale * (tf.reduce_mean(tf.reshape(x, [tf.shape(x)[0], 4])[:, :3], axis=1) - 0.5)
    return tf.stack([-score, score], axis=1)


def gated(gate):
    """The honest network with its gradient shut off where `gate(x)` is false."""

    def network(x):
        keep = tf.cast(gate(x), tf.float32)[:, None]
        true = honest(x)
        return keep * true + (1.0 - keep) * tf.stop_gradient(true)

    return network


def report(network, **arguments):
    found = masking_report(
        network, X, Y, **{"epsilon": EPSILON, "steps": 8, "queries": 60, **arguments}
    )
    return found, {check.name: check for check in found.checks}


def flagged(network, **arguments):
    """The names of the checks that a network fails."""
    found, checks = report(network, **arguments)
    names = {name for name, check in checks.items() if check.verdict == "fail"}
    assert (found.verdict == "fail") == bool(names)
    return names


OPTIONS = {"epsilon": EPSILON, "norm": "linf", "bounds": (0.0, 1.0)}


def subject(network):
    """What the single checks take."""
    return Subject(network, X, Y, (0.0, 1.0), 0, 64, None)


def white_box(network):
    """The verdicts of the checks that compare gradient attacks."""
    checks = masking_checks.white_box(subject(network), OPTIONS, 8)
    return {check.name: check.verdict for check in checks}


def test_an_honest_linear_network_passes_every_check():
    found, checks = report(honest, source=lambda x: honest(x, 1.0))
    assert found.verdict == "pass", found
    assert list(checks) == [
        "probabilities",
        "randomness",
        "gradients",
        "confidence",
        "large_epsilon",
        "single_step",
        "more_steps",
        "more_restarts",
        "margin_loss",
        "transfer",
        "black_box",
    ]
    # The closed form: robust exactly if the mean is farther than epsilon from 0.5.
    robust = (np.abs(X[:, 0, 0, 0] - 0.5) > EPSILON).mean()
    assert found.white_box_accuracy == pytest.approx(robust) and found.clean_accuracy == 1.0
    assert checks["large_epsilon"].figure == 0.0
    assert all("48" in check.sentence for check in found.checks)
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["verdict"] == "pass" and stored["checks"][4]["name"] == "large_epsilon"
    # Mean top probability at the clean points, from the formula.
    top = 1 / (1 + np.exp(-10 * np.abs(X[:, 0, 0, 0] - 0.5)))
    assert f"{100 * top.mean():.1f} % at clean" in checks["confidence"].sentence
    assert checks["confidence"].figure <= top.mean() + 1e-6


def test_logits_so_large_that_the_loss_is_flat():
    def network(x):
        return 1e4 * honest(x)

    found, checks = report(network)
    assert checks["gradients"].verdict == "fail" and checks["gradients"].figure > 0.9
    assert checks["confidence"].verdict == "warn"
    assert checks["large_epsilon"].verdict == "fail"
    # The margin does not saturate: attacks on it break what the cross-entropy hides.
    assert checks["margin_loss"].verdict != "pass" and checks["margin_loss"].figure > 0.1
    assert found.verdict == "fail"
    robust = (np.abs(X[:, 0, 0, 0] - 0.5) > EPSILON).mean()
    assert found.white_box_accuracy == pytest.approx(robust)


@pytest.mark.parametrize("kind", ["stopped", "rounded", "nan", "partly"])
def test_gradients_that_are_zero_or_nan(kind):
    network = {
        "stopped": lambda x: honest(tf.stop_gradient(x)),
        "rounded": lambda x: honest(tf.round(x * 50.0) / 50.0),
        "nan": tf.custom_gradient(lambda x: (honest(x), lambda _: x * np.nan)),
        "partly": gated(lambda x: x[:, 0, 0, 0] < 0.75),
    }[kind]
    check = masking_checks.gradients(subject(network))
    assert check.verdict == "fail"
    assert check.figure == pytest.approx((X[:, 0, 0, 0] >= 0.75).mean() if kind == "partly" else 1)


def test_gradients_that_point_the_wrong_way():
    def network(x):
        return tf.stop_gradient(2.0 * honest(x)) - honest(x)

    names = flagged(network, source=honest)
    assert {"transfer", "black_box", "large_epsilon"} <= names
    assert not {"gradients", "probabilities", "randomness"} & names


def test_a_plateau_that_a_search_without_gradients_crosses():
    # Flat but for a narrow strip at the boundary; no clean image lies in the strip.
    network = gated(lambda x: tf.abs(honest(x)[:, 0]) < 0.02)
    assert {"gradients", "black_box"} <= flagged(network)


def test_randomised_outputs():
    generator = tf.random.Generator.from_seed(1)

    def network(x):
        return honest(x) + generator.normal([tf.shape(x)[0], 2], stddev=0.2)

    assert masking_checks.randomness(subject(network)).verdict == "fail"
    assert masking_checks.randomness(subject(honest)).verdict == "pass"


def test_softmax_outputs():
    check = masking_checks.probabilities(subject(lambda x: tf.nn.softmax(honest(x))))
    assert (check.verdict, check.figure) == ("fail", 1.0)


def test_one_step_that_beats_many():
    # The slope is true at the clean images' own values and nowhere else.
    values = tf.constant(X[:, 0, 0, 0])

    def at_a_clean_image(x):
        return tf.reduce_min(tf.abs(x[:, 0, 0, 0, None] - values), axis=1) < 1e-6

    assert white_box(gated(at_a_clean_image))["single_step"] == "fail"


def test_restarts_that_find_what_one_start_does_not():
    # The slope is true only where a start happened to move the idle pixel far up.
    network = gated(lambda x: x[:, 1, 1, 0] > 0.5 + 0.7 * EPSILON)
    assert white_box(network)["more_restarts"] == "fail"


def test_verdicts_allow_for_sampling_error():
    graded = masking_checks._graded
    # 2 of 20 are 10 %, but 3.4 % would not be unlikely to show that; 100 of 1000 are sure.
    assert intervals.wilson(2, 20)[0] == pytest.approx(0.0279, abs=1e-3)
    assert graded(2, 20, 0.01, 0.05) == "warn"
    assert graded(100, 1000, 0.01, 0.05) == "fail"
    assert graded(0, 20, 0.0, 0.05) == "pass"
    before, after = np.ones(200, bool), np.ones(200, bool)
    after[:30] = False
    assert masking_checks._effort("more_steps", "100 steps", before, after).verdict == "fail"
    assert masking_checks._effort("more_steps", "100 steps", before, before).verdict == "pass"
    slow = masking_checks._effort("more_steps", "100 steps", before, after, "l1")
    assert slow.verdict == "warn" and "l1 ball" in slow.sentence
    # Three images that only FGSM breaks against two that only PGD breaks tell nothing.
    fgsm, pgd = np.ones(200, bool), np.ones(200, bool)
    fgsm[:12], pgd[12:20] = False, False
    assert masking_checks._single_step(fgsm, pgd, 20).verdict == "warn"
    pgd[:] = True
    assert masking_checks._single_step(fgsm, pgd, 20).verdict == "fail"


@pytest.mark.parametrize(
    ("norm", "epsilon", "reach"), [("l2", 0.2, 0.2 / 3**0.5), ("l1", 0.3, 0.1)]
)
def test_other_norms(norm, epsilon, reach):
    # A radius r on the three pixels that count moves their mean by r / sqrt(3) in l2, r / 3 in l1.
    one, options = subject(honest), {**OPTIONS, "norm": norm, "epsilon": epsilon}
    checks = [masking_checks.large_epsilon(one, options, 8)]
    checks += masking_checks.white_box(one, options, 4)
    robust = (np.abs(X[:, 0, 0, 0] - 0.5) > reach).mean()
    assert one.robust.mean() == pytest.approx(robust)
    assert {check.verdict for check in checks} == {"pass"}


def test_the_checks_do_not_depend_on_the_batch_size():
    found = []
    for size in (48, 31):
        one = Subject(honest, X, Y, (0.0, 1.0), 3, size, None)
        found.append(
            [
                masking_checks.gradients(one),
                masking_checks.confidence(one, OPTIONS),
                masking_checks.transferred(one, honest, OPTIONS, 3),
            ]
        )
    assert found[0] == found[1]


def test_refusals():
    with pytest.raises(InputError, match="`norm`"):
        report(honest, norm="l3")
    with pytest.raises(InputError, match="write 8/255"):
        report(honest, epsilon=8)
    with pytest.raises(InputError, match="`steps` must be >= 1"):
        report(honest, steps=0)
    with pytest.raises(InputError, match="at least one image"):
        masking_report(honest, X * 255, Y)
    with pytest.raises(InputError, match="classifies none"):
        masking_report(honest, X, 1 - Y)
    with pytest.raises(InputError, match="finite logits"):
        masking_report(lambda x: honest(x) / 0.0, X, Y)
    with pytest.raises(InputError, match="`source` must have the network's 2 classes"):
        report(honest, source=lambda x: tf.concat([honest(x), honest(x)], axis=1))


@pytest.mark.parametrize(
    ("left", "after", "verdict"),
    [
        (24, 0, "fail"),  # 12 points, and all that there was: SOAR with zero initialisation
        (100, 70, "fail"),  # 15 points
        (80, 60, "warn"),  # 10 points, a quarter of the figure
        (60, 54, "pass"),  # 3 points, as on adversarially trained networks
        (4, 0, "pass"),  # 2 points, which four images cannot tell from one
        (0, 0, "pass"),
    ],
)
def test_the_margin_loss_counts_by_points_and_by_share(left, after, verdict):
    entropy, margin = (np.arange(200) < count for count in (left, after))
    check = masking_checks._margin_loss(entropy, margin, 0.9)
    assert check.verdict == verdict
    assert check.figure == (left - after) / 200
    unsure = masking_checks._margin_loss(entropy, margin, 0.3)
    assert unsure.verdict == ("warn" if verdict == "fail" else verdict)


def test_the_mean_confidence_is_that_of_the_softmax():
    logits = np.array([[0.0, 0.0], [1000.0, 0.0]], np.float32)
    assert masking_checks._mean_confidence(logits) == 0.75
