"""Learning-rate schedules in steps, against their formulas."""

import math

import keras
import numpy as np
import pytest

from soar_tf.errors import InputError
from soar_tf.runs import optimizers
from soar_tf.runs.config import TrainConfig

PEAK, TOTAL = 0.4, 20


def rates(schedule, **options):
    options = {"drops": (0.5,), **options}
    rate = optimizers.learning_rate(schedule, PEAK, TOTAL, **options)
    if not callable(rate):
        return [rate] * TOTAL
    return [float(rate(step)) for step in range(TOTAL)]


def cosine(step, length):
    return PEAK * 0.5 * (1 + math.cos(math.pi * min(step, length) / length))


def ramp(step, warmup):
    return min(1.0, (step + 1) / warmup)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("cosine", {}), lambda k: cosine(k, TOTAL)),
        (("cosine", {"warmup": 4}), lambda k: ramp(k, 4) * cosine(max(0, k - 4), TOTAL - 4)),
        (("constant", {"warmup": 5}), lambda k: PEAK * ramp(k, 5)),
        # 7 steps at the peak, 5 at a tenth, the others at a hundredth.
        (("paper", {"drop_steps": [7, 12]}), lambda k: PEAK * 0.1 ** ((k >= 7) + (k >= 12))),
        (
            ("paper", {"drop_steps": [7], "warmup": 2}),
            lambda k: ramp(k, 2) * PEAK * 0.1 ** (k >= 7),
        ),
        # A 25th of the peak at first, the peak after the warm-up.
        (
            ("onecycle", {"warmup": 8}),
            lambda k: PEAK * (1 / 25 + 24 / 25 * k / 8) if k < 8 else cosine(k - 8, TOTAL - 8),
        ),
    ],
    ids=lambda value: "rate" if callable(value) else f"{value[0]} {value[1]}",
)
def test_every_step_has_the_formulas_rate(arguments, expected):
    schedule, options = arguments
    wanted = [expected(step) for step in range(TOTAL)]
    np.testing.assert_allclose(rates(schedule, **options), wanted, rtol=2e-6, atol=1e-8)


def test_what_is_not_in_steps_is_as_it_was():
    assert rates("constant") == [PEAK] * TOTAL
    assert rates("paper") == pytest.approx([PEAK] * 11 + [0.1 * PEAK] * 9)
    np.testing.assert_allclose(rates("onecycle"), rates("onecycle", warmup=6))


@pytest.mark.parametrize("inner", [0.1, keras.optimizers.schedules.CosineDecay(0.1, 10)])
def test_a_warm_up_is_saved_with_its_optimizer(inner):
    optimizer = keras.optimizers.SGD(optimizers.WarmUp(inner, 4, after=2))
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(config)
    for step in (0, 3, 9):
        assert float(again._learning_rate(step)) == float(optimizer._learning_rate(step))


def test_a_phase_must_be_longer_than_what_is_set_for_it():
    config = TrainConfig(epochs=4, pretrain_epochs=2, lr_warmup=19).resolved(fine_tunes=True)
    config.check_lengths(10)
    config.lr_warmup = 20
    with pytest.raises(InputError, match="`lr_warmup` must be smaller than the 20 steps"):
        config.check_lengths(10)
    config = TrainConfig(epochs=4, lr_schedule="paper", lr_drop_steps=[5, 39])
    config = config.resolved(fine_tunes=True)
    config.check_lengths(10)
    with pytest.raises(InputError, match="must lie before the last of 36 steps"):
        config.check_lengths(9)
