"""Progress on stderr: one line drawn again on a terminal, few plain lines elsewhere."""

import sys

import pytest

from soar_tf.cli import progress
from soar_tf.evaluation import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_line():
    call = Progress("autoattack 2/4 apgd-t", 256, 1000, 190, 4271.0)
    assert progress.text(call) == (
        "autoattack 2/4 apgd-t: 256/1000 images, 190 robust so far, about 71 min left"
    )
    assert progress.text(Progress("fgsm", 3, 5)) == "fgsm: 3/5 images"
    assert "left" not in progress.text(Progress("fgsm", 3, 5, 1, 0.4))


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end(clock, capsys):
    draw = progress.drawer()
    for second in range(40):
        clock[0] += 1
        draw(Progress("fgsm", second, 40))
    draw(Progress("fgsm", 40, 40))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in lines] == [
        " 14/40 images",
        " 29/40 images",
        " 40/40 images",
    ]


def test_a_terminal_gets_one_line_that_is_cut_to_its_width(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "30")
    draw = progress.drawer(1, "crafting against ")
    draw(Progress("a" * 50, 1, 2))  # too soon
    clock[0] += 0.2
    draw(Progress("a" * 50, 1, 2))
    draw(Progress("b", 2, 2))
    text = capsys.readouterr().err
    clear = "\x1b[K"
    assert text == (f"\rcrafting against {'a' * 12}{clear}\rcrafting against b: 2/2 image{clear}\n")


def test_silence():
    assert progress.drawer(0) is None
