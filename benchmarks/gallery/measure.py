"""One row of the gallery's table: what is found on a masked network, or on an honest one."""

import keras
import numpy as np

import soar_tf
from soar_tf.attacks import as_logits_fn
from soar_tf.evaluation import masking_report
from soar_tf.evaluation.results import HIDING

EPSILON = 0.2
"""Radius of all attacks on masked networks, l-infinity: it breaks most of the bare network."""

HONEST_EPSILON = 0.1
COUNT = 100

SET, TESTED = "set", "tested"


def halves(entries):
    """Which half of the gallery each entry is in: every other one, so that each has all kinds.

    Thresholds (of the probe, of the masking checks) are set on the first half; the second one only
    tests them.
    """
    return {name: TESTED if number % 2 else SET for number, name in enumerate(entries)}


def bare_network(train):
    """The network behind every mask: trained adversarially in a smaller ball, a few epochs."""
    keras.utils.set_random_seed(0)
    network = soar_tf.networks.mlp(input_shape=(8, 8, 1), num_classes=10, width=0.5)
    method = soar_tf.methods.Adversarial(epsilon=0.1, steps=2)
    model = soar_tf.RobustModel(network, method)
    model.compile(keras.optimizers.Adam(5e-3))
    model.fit(train.float_images(), train.labels, epochs=10, batch_size=64, verbose=0)
    return network


def truth(bare, x, y):
    """Clean accuracy of the bare network, and its accuracy under AutoAttack."""
    found = soar_tf.evaluate(bare, x, y, [f"autoattack:epsilon={EPSILON}"])
    return {"clean": found.clean_accuracy, "autoattack": found.worst_case_accuracy}


def masked_row(masked, x, y):
    """What attacks find on a masked network, with and without `adaptive=True`.

    Returns:
        A dictionary: `clean`, `pgd20`, `autoattack`, `adaptive` (PGD-20 and the adaptive attack)
        and `flagged_by`, the probe's findings, or where it has none the masking checks that fail.
    """
    plain = soar_tf.evaluate(masked, x, y, [f"autoattack:epsilon={EPSILON}"], adaptive=False)
    found = soar_tf.evaluate(masked, x, y, [f"pgd20:epsilon={EPSILON}"], adaptive=True)
    flags = [finding.name for finding in plain.findings if finding.name in HIDING]
    if not flags:
        report = masking_report(masked, x, y, epsilon=EPSILON)
        flags = [check.name for check in report.checks if check.verdict == "fail"]
    return {
        "clean": plain.clean_accuracy,
        "pgd20": found.attacks[0].robust_accuracy,
        "autoattack": plain.worst_case_accuracy,
        "adaptive": found.worst_case_accuracy,
        "flagged_by": flags,
    }


def honest_row(network, x, y):
    """What the probe and the masking checks say of an honest network.

    Returns:
        A dictionary: `clean`, `white_box`, `findings`, `verdict`, `warnings`.
    """
    probe = soar_tf.probe(as_logits_fn(network), x, np.asarray(y))
    report = masking_report(network, x, y, epsilon=HONEST_EPSILON)
    return {
        "clean": report.clean_accuracy,
        "white_box": report.white_box_accuracy,
        "findings": list(probe.names),
        "verdict": report.verdict,
        "warnings": [check.name for check in report.checks if check.verdict != "pass"],
    }


def about():
    """The settings that results depend on."""
    return {"n": COUNT, "epsilon": EPSILON, "honest_epsilon": HONEST_EPSILON, "seed": 0}
