"""What a report opens with follows from its figures: the worst news first, then what mends it."""

import pytest

from soar_tf.reports.opening import opening

PGD = {"name": "pgd20", "norm": "linf", "epsilon": 8 / 255}
AUTOATTACK = {"name": "autoattack:version=rand", "norm": "linf", "epsilon": 8 / 255}


def report(attacks=(PGD, AUTOATTACK), reliability="not checked", n=1000, masking=None, **more):
    found = {"attacks": list(attacks), "reliability": reliability, "n": n, **more}
    return found if masking is None else {**found, "masking": {"verdict": masking}}


@pytest.mark.parametrize(
    ("given", "kind", "verdict"),
    [
        (report(), "caution", "nothing checked for hidden gradients"),
        (report([PGD]), "caution", "No strong attack was run"),
        (report(reliability="unreliable", masking="fail"), "alarm", "Do not rely on"),
        (report([PGD], "unreliable"), "alarm", "Do not rely on"),
        (report(reliability="no gradients"), "caution", "accuracy of its source"),
        (report(reliability="no masking check failed", masking="warn"), "caution", "warns"),
        (report(reliability="no masking check failed", masking="pass"), "sound", "Sound: a strong"),
        (report(reliability="no masking check failed", masking="pass", n=999), "caution", "few im"),
        (report([PGD], "no masking check failed", masking="pass"), "caution", "No strong attack"),
    ],
)
def test_the_verdict_is_the_worst_that_is_known(given, kind, verdict):
    found = opening(given)
    assert found["kind"] == kind and verdict in found["verdict"]


def test_the_next_steps_are_what_was_left_out():
    steps = " ".join(opening(report([PGD], n=200))["steps"])
    assert "`--attack autoattack --masking --limit 1000`" in steps and "--curve" in steps
    steps = " ".join(opening(report(masking="fail", reliability="unreliable"))["steps"])
    assert "`--adaptive`" in steps and "section on gradient masking" in steps
    adaptive = {**PGD, "name": "adaptive Linf 8/255"}
    again = opening(report([AUTOATTACK, adaptive], "unreliable", masking="fail"))["steps"]
    assert "--adaptive" not in " ".join(again)
    done = report(reliability="no masking check failed", masking="pass", curve={})
    (step,) = opening(done)["steps"]
    assert "soar-tf compare" in step
    steps = " ".join(opening(report(reliability="no gradients"))["steps"])
    assert "source with `--masking`" in steps and "Add `--curve`" not in steps


def test_threat_models_in_words_say_each_once():
    ball = {"name": "l2pgd40", "norm": "l2", "epsilon": 0.5}
    diamond = {"name": "apgd", "norm": "l1", "epsilon": 12.0}
    spatial = {"name": "spatial", "norm": None, "epsilon": None}
    texts = opening(report([PGD, AUTOATTACK, ball, diamond, spatial]))["threats"]
    assert len(texts) == 5
    assert texts[0].startswith("Linf 8/255: every pixel value") and "(3.1 %)" in texts[0]
    assert "add up to at most 0.5²" in texts[1] and "add up to at most 12." in texts[2]
    assert texts[3].startswith("Transformations") and "white box" in texts[4]
    assert "exported from" in opening(report(reliability="no gradients"))["threats"][-1]
