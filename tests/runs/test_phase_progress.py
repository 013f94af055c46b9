"""How long a phase will still take."""

import pytest

from soar_tf.formatting import duration_text
from soar_tf.runs.callbacks import PhaseProgress


def _run(ends, epochs, capsys, initial_epoch=0):
    """Plays a training whose epochs end at these times; returns what was said."""
    times = iter([0.0, 0.0, *ends])
    progress = PhaseProgress("soar", initial_epoch, clock=lambda: next(times))
    progress.set_params({"epochs": epochs})
    progress.on_train_begin()
    for epoch in range(len(ends)):
        progress.on_epoch_end(epoch)
    return capsys.readouterr().err.splitlines()


def test_the_first_epoch_is_no_measure_of_the_others(capsys):
    # 60 s with compilation, then 20 s each.
    said = _run([60.0, 80.0, 100.0], 10, capsys)
    assert said[0] == "Phase soar: 1 of 10 epochs, 60 s each, about 9 min left"
    assert said[2] == "Phase soar: 3 of 10 epochs, 20 s each, about 2 min left"


def test_fast_epochs_share_a_line_and_the_last_needs_none(capsys):
    assert len(_run([1.0 + i for i in range(25)], 25, capsys)) == 2


def test_a_resumed_phase_counts_the_epochs_before(capsys):
    said = _run([30.0], 6, capsys, initial_epoch=3)
    assert said == ["Phase soar: 4 of 6 epochs, 30 s each, about 60 s left"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (130, "2 min"), (6000, "1 h 40 min")]
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text
