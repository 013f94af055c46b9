"""SOAR runs that skip clipped examples: what they say, and what a change of the way does."""

import shlex

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.faults.runs import TINY
from soar_tf.cli.main import main
from soar_tf.runs import checkpoints
from soar_tf.training import skipping

SOAR = (
    "train",
    *TINY,
    *shlex.split(
        "--method soar --pretrain-epochs 0 --epochs 2 --method-arg norm_clip=0.5 --verbose 2 "
        "--validation-images 0"
    ),
)
ALWAYS, NEVER = 1.0, -1.0


def weights(folder):
    return np.concatenate([np.ravel(w) for w in network(folder).get_weights()])


def network(folder):
    return keras.saving.load_model(folder / "model.keras")


def said(result):
    return [line for line in result.stderr.splitlines() if "second-order passes" in line]


@pytest.fixture
def stopped_after_an_epoch():
    """Runs a command until the checkpoint of its first epoch, as Ctrl-C would."""
    saved = checkpoints.save

    def save(folder, model, progress, *rest):
        saved(folder, model, progress, *rest)
        raise KeyboardInterrupt

    def run(*command):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "save", save)
            return CliRunner().invoke(main, [*map(str, command)])

    return run


def test_a_run_resumed_with_the_other_way_gives_the_same_network(
    tmp_path, monkeypatch, run_cli, stopped_after_an_epoch
):
    monkeypatch.setattr(skipping, "INTERVAL", 1)
    monkeypatch.setattr(skipping, "LARGEST_SHARE", NEVER)
    plain = run_cli(*SOAR, "--workdir", tmp_path / "plain")
    hint = "; --micro-batch bounds their memory"
    line = "Phase soar: second-order passes of {}"
    assert said(plain) == [line.format("all examples from epoch 1 on" + hint)]
    for first, then, way in [
        (NEVER, ALWAYS, "the unclipped examples only from epoch 2 on"),
        (ALWAYS, NEVER, "all examples from epoch 2 on" + hint),
    ]:
        folder = tmp_path / way.partition(" ")[0]
        monkeypatch.setattr(skipping, "LARGEST_SHARE", first)
        stopped_after_an_epoch(*SOAR, "--workdir", folder)
        monkeypatch.setattr(skipping, "LARGEST_SHARE", then)
        resumed = run_cli(*SOAR, "--workdir", folder)
        assert said(resumed) == [line.format(way)]
        np.testing.assert_allclose(weights(folder), weights(tmp_path / "plain"), atol=2e-5)


def test_the_log_says_the_share_and_the_step_at_which_the_way_changes(
    tmp_path, monkeypatch, run_cli
):
    monkeypatch.setattr(skipping, "INTERVAL", 1)
    monkeypatch.setattr(skipping, "LARGEST_SHARE", 1e-6)
    result = run_cli(*SOAR, "--micro-batch", "8", "--workdir", tmp_path / "run")
    assert said(result) == [
        "Phase soar: second-order passes of the unclipped examples only from epoch 1 on",
        "Phase soar: second-order passes of all examples from epoch 1, step 2 on",
    ]
    assert "unclipped: 0." in result.stderr
