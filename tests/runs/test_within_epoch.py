"""A run that is stopped in the middle of an epoch ends with the bits of one that was not."""

import json

import pytest

from benchmarks.faults.runs import log, weights
from soar_tf.runs import checkpoints

TINY = (
    "train", "--dataset", "digits", "--network", "mlp", "--network-arg", "width=0.05", "--limit",
    "64", "--batch-size", "16", "--verbose", "0", "--evaluate", "0",
)  # fmt: skip
# Phases, metrics, a penalty and its diagnostics, a schedule, an attack and a choice of the epoch.
SOAR = (
    *TINY, "--method", "soar", "--method-arg", "lambda_=ramp(0, 0.5, steps=6)",
    "--pretrain-epochs", "1", "--epochs", "2", "--keep-best", "--validation-attack", "fgsm",
    "--validation-limit", "40", "--augment",
)  # fmt: skip


def result(folder):
    return weights(folder / "model.keras"), log(folder / "log.csv")


@pytest.fixture
def stop_at(monkeypatch):
    """Makes training stop after the checkpoint of `(phase, epoch, step)`, as Ctrl-C would."""
    saved = checkpoints.save

    def arm(place):
        def save(folder, model, progress, *rest):
            saved(folder, model, progress, *rest)
            step = (progress.get("within") or {}).get("step", 0)
            if (progress["phase"], progress["epoch"], step) == place:
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoints, "save", save)

    return arm


def test_a_run_stopped_within_epochs_ends_with_the_same_bits(tmp_path, run_cli, stop_at):
    run_cli(*SOAR, "--workdir", tmp_path / "whole")
    # Within the standard phase; in the first epoch of SOAR's; after the last step of the last one,
    # so that only its validation is left.
    for place in ((0, 0, 3), (1, 0, 1), (1, 1, 4)):
        stop_at(place)
        stopped = run_cli(*SOAR, "--checkpoint-every", "1", "--workdir", tmp_path / "parts",
                          expect=1)  # fmt: skip
        assert "the same command resumes from the last checkpoint" in stopped.stderr
        newest, progress = checkpoints.newest(tmp_path / "parts" / "checkpoints")
        assert newest.name.startswith(f"{place[0]:03d}-{place[1]:06d}-{place[2]:09d}.")
        assert progress["within"]["step"] == place[2]
        assert len(list((tmp_path / "parts" / "checkpoints").iterdir())) <= 3
    stop_at(None)
    # The interval may change from one start to the next.
    run_cli(*SOAR, "--checkpoint-every", "1h", "--workdir", tmp_path / "parts")
    assert result(tmp_path / "parts") == result(tmp_path / "whole")
    manifest = json.loads((tmp_path / "parts" / "manifest.json").read_text())
    assert manifest["resumes"] == 3 and manifest["status"] == "complete"
