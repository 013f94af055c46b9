"""A run that is stopped in the middle of an epoch ends with the bits of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import soar_tf
from benchmarks.faults.runs import TINY, log, weights
from soar_tf.errors import InputError
from soar_tf.runs import checkpoints, intervals, selection, within_epoch, workers
from soar_tf.runs.config import TrainConfig
from soar_tf.training import strategies

ROOT = Path(__file__).parents[2]
TRAIN = ("train", *TINY, "--batch-size", "16")
WATCHED = (
    *TRAIN,
    "--epochs",
    "2",
    "--keep-best",
    "--validation-attack",
    "fgsm",
    "--validation-limit",
    "40",
    "--augment",
)
ADVERSARIAL = (
    *WATCHED,
    "--method",
    "adversarial",
    "--method-arg",
    "steps=2",
    "--optimizer",
    "adam",
)
# Two phases, a penalty and its diagnostics, a schedule.
SOAR = (
    *WATCHED,
    "--method",
    "soar",
    "--method-arg",
    "lambda_=ramp(0, 0.5, steps=6)",
    "--pretrain-epochs",
    "1",
)
STANDARD = (*TRAIN, "--method", "standard", "--epochs", "2", "--ema", "0.9", "--lr-warmup", "3")


def result(folder):
    return weights(folder / "model.keras"), log(folder / "log.csv")


def newest(folder):
    """Phase, finished epochs and finished steps of the next one, of the newest checkpoint."""
    _, progress = checkpoints.newest(folder / "checkpoints")
    step = (progress.get("within") or {}).get("step", 0)
    return progress["phase"], progress["epoch"], step


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


@pytest.mark.parametrize(
    ("arguments", "interval", "places"),
    [
        # In an epoch; after the last step of the last one, so that only its validation is left.
        (ADVERSARIAL, 1, [(0, 0, 3), (0, 1, 4)]),
        # In the standard phase and in the first epoch of the next one, too.
        pytest.param(SOAR, 1, [(0, 0, 3), (1, 0, 1), (1, 1, 4)], marks=pytest.mark.slow),
        # An interval longer than an epoch of 4 steps, steps in parts, a rate that changes by step.
        pytest.param(
            (*ADVERSARIAL, "--micro-batch", "8", "--lr-warmup", "3"),
            7,
            [(0, 1, 3)],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["adversarial", "soar", "parts"],
)
def test_a_run_stopped_within_epochs_ends_with_the_same_bits(
    arguments, interval, places, tmp_path, run_cli, stop_at
):
    run_cli(*arguments, "--workdir", tmp_path / "whole")
    for place in places:
        stop_at(place)
        stopped = run_cli(
            *arguments,
            *("--checkpoint-every", interval, "--workdir", tmp_path / "parts"),
            expect=1,
        )
        assert "the same command resumes from the last checkpoint" in stopped.stderr
        assert newest(tmp_path / "parts") == place
        assert len(list((tmp_path / "parts" / "checkpoints").iterdir())) <= 3
    stop_at(None)
    # The interval may change from one start to the next.
    run_cli(*arguments, "--checkpoint-every", "1h", "--workdir", tmp_path / "parts")
    assert result(tmp_path / "parts") == result(tmp_path / "whole")
    manifest = json.loads((tmp_path / "parts" / "manifest.json").read_text())
    assert manifest["resumes"] == len(places) and manifest["status"] == "complete"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A standard run that was not interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    arguments = [*STANDARD, "--workdir", str(folder)]
    from click.testing import CliRunner

    from soar_tf.cli.main import main

    assert CliRunner().invoke(main, arguments).exit_code == 0
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_step_waits_for_a_checkpoint(number, whole, tmp_path, run_cli, monkeypatch):
    told = within_epoch.CheckpointWithinEpoch.on_train_batch_end

    def signalled(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            os.kill(os.getpid(), number)
        told(self, batch, logs)

    arguments = (*STANDARD, "--checkpoint-every", "1h", "--workdir", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(within_epoch.CheckpointWithinEpoch, "on_train_batch_end", signalled)
        stopped = run_cli(*arguments, expect=1)
    assert "Stopping after this step, with a checkpoint." in stopped.stderr
    assert "interrupted; the same command resumes" in stopped.stderr
    assert newest(tmp_path / "run") == (0, 1, 2)
    run_cli(*arguments)
    assert result(tmp_path / "run") == result(whole)


def test_a_signal_outside_of_steps_ends_the_run_at_once(tmp_path, run_cli, monkeypatch):
    def measure(self, epoch):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(soar_tf.callbacks.RobustAccuracy, "measure", measure)
    stopped = run_cli(
        *TRAIN,
        "--method",
        "standard",
        "--epochs",
        "1",
        "--validation-attack",
        "fgsm",
        "--checkpoint-every",
        "3",
        "--workdir",
        tmp_path / "run",
        expect=1,
    )
    assert "Stopping" not in stopped.stderr
    assert newest(tmp_path / "run") == (0, 0, 3)


def test_the_second_signal_is_not_held():
    request, seen = within_epoch.StopRequest(), []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append("before"))
    try:
        with request.heeded():
            request.holding = True
            os.kill(os.getpid(), signal.SIGINT)
            assert request.made and not seen
            os.kill(os.getpid(), signal.SIGINT)
            assert seen == ["before"]
        os.kill(os.getpid(), signal.SIGINT)
        assert seen == ["before"] * 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_network_that_is_not_finite_is_not_kept(tmp_path, run_cli):
    failed = run_cli(
        *TRAIN,
        "--method",
        "standard",
        "--epochs",
        "2",
        "--learning-rate",
        "1e20",
        "--lr-schedule",
        "constant",
        "--checkpoint-every",
        "1",
        "--workdir",
        tmp_path / "run",
        expect=1,
    )
    _, _, step = newest(tmp_path / "run")
    assert step >= 1
    assert f"the network of step {step} in epoch 1 is kept in model.keras" in failed.stderr
    network = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert all(np.isfinite(weight).all() for weight in network.get_weights())


def test_a_damaged_checkpoint_within_an_epoch_is_gone_round(whole, tmp_path, run_cli, stop_at):
    arguments = (*STANDARD, "--checkpoint-every", "1", "--workdir", tmp_path / "run")
    stop_at((0, 1, 2))
    run_cli(*arguments, expect=1)
    stop_at(None)
    path, _ = checkpoints.newest(tmp_path / "run" / "checkpoints")
    path.write_bytes(path.read_bytes()[:-7])
    resumed = run_cli(*arguments)
    assert f"{path.name} is damaged; using the one before." in resumed.stderr
    assert result(tmp_path / "run") == result(whole)


def test_a_checkpoint_of_other_steps_or_metrics_is_refused(tmp_path, run_cli, stop_at, monkeypatch):
    arguments = (*STANDARD, "--checkpoint-every", "1", "--workdir")
    stop_at((0, 0, 2))
    run_cli(*arguments, tmp_path / "run", expect=1)
    stop_at(None)
    read = checkpoints.parse_progress
    for change, said in (
        ({"step": 5}, "it is of step 5, and an epoch has 4 steps"),
        ({"metrics": [[1.0]]}, "it has 1 metric values, and the run has"),
        ({"metrics": [[[1.0, 2.0]]] * 4}, "its metrics are others"),
    ):

        def changed(text, change=change):
            progress = read(text)
            return {**progress, "within": {**progress["within"], **change}}

        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "parse_progress", changed)
            refused = run_cli(*arguments, tmp_path / "copy", expect=1)
        assert f"The checkpoint does not fit this run: {said}" in refused.stderr
        shutil.rmtree(tmp_path / "copy")


@pytest.mark.parametrize(
    ("value", "steps", "seconds"),
    [(7, 7, None), ("500", 500, None), ("90s", None, 90), ("10m", None, 600), ("1h", None, 3600)],
)
def test_intervals(value, steps, seconds):
    assert intervals.parse(value) == intervals.Interval(steps, seconds)


@pytest.mark.parametrize(
    "value", [0, "0m", -1, "1d", "m", "1.5h", "", True, None, "10 m", "9" * 10]
)
def test_what_is_no_interval(value):
    with pytest.raises(InputError, match="must be a number of steps such as 500, or a time"):
        intervals.parse(value)


def test_an_interval_is_no_part_of_what_a_run_is():
    config = TrainConfig(checkpoint_every="500").resolved(fine_tunes=True)
    assert config.checkpoint_every == 500
    assert config.differences({**config.to_dict(), "checkpoint_every": "10m"}) == []
    assert config.differences(TrainConfig().resolved(fine_tunes=True).to_dict()) == []


def test_moments_in_one_process():
    now = [0.0]
    timed = within_epoch.Moments(intervals.parse("10s"), clock=lambda: now[0])
    given = []
    for step in range(1, 8):
        now[0] += 4
        given.append(timed.after(step, stop=False)[0])
        if given[-1]:
            timed.was_saved()
    assert given == [False, False, True, False, False, True, False]
    assert timed.after(8, stop=True) == (True, True)
    counted = within_epoch.Moments(intervals.parse(3))
    assert [counted.after(step, stop=False) for step in (2, 3, 4, 6)] == [
        (False, False),
        (True, False),
        (False, False),
        (True, False),
    ]


def votes(interval, steps, late, stops, seconds=0.5):
    """What two processes whose clocks differ do after each step; `stops`: `{(rank, step)}`."""
    barrier, sums = threading.Barrier(2), {}
    given = [[], []]

    def run(rank):
        now = [0.0]
        moments = within_epoch.Moments(intervals.parse(interval), clock=lambda: now[0])
        moments._chief = rank == 0
        calls = iter(range(10**6))

        def summed(values):
            call = next(calls)
            sums.setdefault(call, {})[rank] = values
            barrier.wait(10)
            return sum(sums[call].values())

        moments._sum = summed
        for step in range(1, steps + 1):
            now[0] += seconds * (late if rank else 1.0)
            save, stop = moments.after(step, (rank, step) in stops)
            given[rank].append((save, stop))
            if save:
                moments.was_saved()
            if stop:
                return

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return given


@pytest.mark.parametrize("interval", ["20s", "7"])
def test_processes_with_other_clocks_agree(interval):
    chief, worker = votes(interval, 100, late=3.0, stops=set())
    assert chief == worker and len(chief) == 100
    saved = [step for step, (save, _) in enumerate(chief, 1) if save]
    if interval == "7":
        assert saved == list(range(7, 100, 7))
    else:  # every 40 steps of the chief's half seconds, and up to 4 for the next vote
        assert saved[0] in range(40, 45) and len(saved) == 2


def test_a_signal_to_one_process_stops_both_with_a_checkpoint():
    for rank in (0, 1):
        # It is still asked for at the next vote, some steps later.
        asked = {(rank, step) for step in range(30, 100)}
        chief, worker = votes("1h", 100, late=0.3, stops=asked)
        assert chief == worker and chief[-1] == (True, True) and 30 <= len(chief) <= 34
        assert not any(save for save, _ in chief[:-1])


def test_another_number_of_replicas_takes_the_sum_of_the_metrics():
    assert within_epoch.metrics_of(None, [[3.0], [[1.0, 2.0]]])[0] == [3.0]
    (total,), (vector,) = within_epoch.metrics_of(None, [[3.0, 4.0], [[1.0, 2.0], [5.0, 7.0]]])
    assert total == 7.0 and vector.tolist() == [6.0, 9.0]
    for bad in ([["x"]], [[[1.0], [1.0, 2.0]]], [3]):
        with pytest.raises(InputError, match="must be lists of numbers"):
            within_epoch.metrics_of(None, bad)


def test_a_worker_with_other_settings_leaves_nothing_behind(tmp_path, monkeypatch):
    """As rank 0 sees it: what rank 1 sends is not what it has itself."""
    monkeypatch.setattr(strategies, "hosts", lambda strategy: 2)
    monkeypatch.setattr(strategies, "rank", lambda strategy: 0)
    monkeypatch.setattr(strategies, "gather", lambda strategy, own: [own, bytes(len(own))])
    config = TrainConfig(method="standard").resolved(fine_tunes=False)
    opening = workers.open_run(object(), tmp_path / "run", config, "fingerprint")
    with pytest.raises(InputError, match="Rank 1's differ from rank 0's"), opening:
        raise AssertionError("it was opened")
    assert not (tmp_path / "run").exists()


def test_the_validation_draw_is_the_same_and_of_all_classes(digits):
    config = TrainConfig(validation_limit=60)
    labels = np.sort(digits["validation"].labels)  # class by class, as folders come
    images = np.arange(len(labels), dtype="float32")[:, None, None, None] / len(labels)
    sorted_by_class = {"validation": soar_tf.datasets.Split(images, labels)}
    drawn = selection.validation_split(sorted_by_class, config)
    assert len(drawn) == 60 and set(drawn.labels) == set(range(10))
    again = selection.validation_split(sorted_by_class, config)
    np.testing.assert_array_equal(drawn.images, again.images)
    assert len(set(drawn.images.ravel())) == 60
    whole = selection.validation_split(sorted_by_class, TrainConfig(validation_limit=10**6))
    assert len(whole) == len(labels)


def test_validation_looks_at_the_draw_only(tmp_path, run_cli, digits):
    run_cli(
        *TRAIN,
        "--method",
        "standard",
        "--epochs",
        "1",
        "--validation-limit",
        "30",
        "--workdir",
        tmp_path / "run",
    )
    network = keras.saving.load_model(tmp_path / "run" / "model.keras")
    split = selection.validation_split(digits, TrainConfig(validation_limit=30))
    right = network.predict(split.float_images(), verbose=0).argmax(1) == split.labels
    header, row = log(tmp_path / "run" / "log.csv")
    assert float(row[header.index("val_accuracy")]) == pytest.approx(right.mean())


MIRRORED = """
import sys, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from soar_tf.runs import checkpoints, cluster
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.experiment import Experiment
from soar_tf.training import strategies

config = TrainConfig(method="standard", network="mlp", network_args={"width": 0.05}, limit=64,
                     epochs=2, batch_size=16, checkpoint_every=1)
saved = checkpoints.save

def train(folder):
    Experiment(config, strategies.make(cluster.Cluster("mirrored"))).run(folder, verbose=0)

def stopping(folder, model, progress, *rest):
    saved(folder, model, progress, *rest)
    if (progress["epoch"], progress.get("within", {}).get("step")) == (1, 2):
        assert all(len(values) == 2 for values in progress["within"]["metrics"])
        raise KeyboardInterrupt

train(sys.argv[1])
checkpoints.save = stopping
try:
    train(sys.argv[2])
    raise AssertionError("it was not stopped")
except KeyboardInterrupt:
    checkpoints.save = saved
train(sys.argv[2])
"""


@pytest.mark.slow
def test_two_replicas_of_one_host_resume_within_an_epoch(tmp_path):
    folders = [tmp_path / "whole", tmp_path / "parts"]
    command = [sys.executable, "-c", MIRRORED, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert result(folders[0]) == result(folders[1])
