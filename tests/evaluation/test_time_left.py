"""The guess of the time that an evaluation still takes, by a clock of the test's own."""

import pytest

from soar_tf.evaluation import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_the_guess_is_what_is_left_over_the_speed_so_far(clock):
    seen = []
    meter = progress.Meter(seen.append)
    meter.begin("pgd", total=20, budget=5.0, later=10.0)
    clock[0] += 30.0  # tracing the graph: no pass yet
    for _ in range(5):
        meter.count(10)  # after the first pass, 4 more in 2 seconds
        clock[0] += 0.4
    meter.finish_batch(10, robust=5)
    # 50 passes in 2 s; to come are 50 of the other 10 images, and 10 each of the robust half.
    assert seen[-1].seconds_left == pytest.approx((50 + 0.5 * 20 * 10) * 2.0 / 50)


def test_every_attacks_clock_starts_with_its_first_pass(clock):
    seen = []
    meter = progress.Meter(seen.append)
    for tracing in (7.0, 70.0):
        meter.begin("fgsm", total=4, budget=4.0, later=4.0)
        clock[0] += tracing
        meter.count(16)
        clock[0] += 1.0
        meter.finish_batch(4, robust=4)
    assert [call.seconds_left for call in seen if call.done] == [1.0, 1.0]
    assert seen[0].seconds_left is None  # the first pass has just begun


def test_without_a_pass_there_is_no_guess(clock):
    seen = []
    meter = progress.Meter(seen.append)
    meter.begin("pgd", total=4, budget=4.0, later=0.0)
    clock[0] += 3.0
    meter.finish_batch(2, robust=1)
    assert seen[-1].seconds_left is None
