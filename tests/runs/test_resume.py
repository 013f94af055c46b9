"""A run goes on with the bits, the choices and the environment that it was stopped with."""

import csv
import errno
import json
import operator
import os
import shlex
import shutil
import tomllib

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import soar_tf
from benchmarks.faults.runs import TINY
from soar_tf import methods, registry
from soar_tf.cli.main import main
from soar_tf.errors import InputError, RunError
from soar_tf.runs import checkpoints, experiment, provenance
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.run_directory import RunDirectory

STANDARD = ("train", "--method", "standard", *TINY)


def weights(folder):
    return keras.saving.load_model(folder / "model.keras").get_weights()


def rows(folder):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(first, second):
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert rows(first) == rows(second)


@pytest.fixture
def stop_after(monkeypatch):
    """Makes training stop after an epoch's checkpoint, as Ctrl-C would; `None`: never."""
    saved = checkpoints.save

    def arm(epoch):
        def save(folder, model, progress, *rest):
            saved(folder, model, progress, *rest)
            if epoch in ("every", progress["epoch"]):
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoints, "save", save)

    return arm


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """A run of three epochs that was stopped after the second."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    saved = checkpoints.save

    def save(folder, model, progress, *rest):
        saved(folder, model, progress, *rest)
        if progress["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", save)
        CliRunner().invoke(main, [*STANDARD, "--epochs", "3", "--workdir", str(folder)])
    return folder


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_coupled_weight_decay_resumes_with_the_same_bits(optimizer, tmp_path, stop_after, run_cli):
    command = (
        *STANDARD,
        "--optimizer",
        optimizer,
        "--weight-decay-type",
        "coupled",
        "--epochs",
        "2",
        "--lr-schedule",
        "paper",
        "--lr-drop",
        "1",
        "--validation-images",
        "0",
    )
    run_cli(*command, "--workdir", tmp_path / "whole")
    stop_after(1)
    CliRunner().invoke(main, [*command, "--workdir", str(tmp_path / "run")])
    stop_after(None)
    run_cli(*command, "--workdir", tmp_path / "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    rate = {"sgd": 0.01, "adam": 1e-3}[optimizer]
    found = [float(row["learning_rate"]) for row in rows(tmp_path / "run")]
    assert found == pytest.approx([rate, 0.1 * rate])
    assert not [name for name in rows(tmp_path / "run")[0] if name.startswith("val_")]
    split = ("--split", "validation", "--attack", "fgsm")
    refused = run_cli("evaluate", tmp_path / "run", *split, expect=2)
    assert "'digits' has no split 'validation' here" in refused.stderr


def test_mixed_images_and_labels_resume_with_the_same_bits(tmp_path, stop_after, run_cli):
    command = (
        *STANDARD,
        "--method",
        "elle",
        "--method-arg",
        "adaptive=true",
        "--mixup",
        "0.4",
        "--cutout",
        "2",
        "--epochs",
        "3",
        "--label-smoothing",
        "0.1",
    )
    run_cli(*command, "--workdir", tmp_path / "whole")
    stop_after(2)
    CliRunner().invoke(main, [*command, "--workdir", str(tmp_path / "run")])
    stop_after(None)
    run_cli(*command, "--workdir", tmp_path / "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    last = rows(tmp_path / "run")[-1]
    assert 0 <= float(last["val_accuracy"]) <= 1 and float(last["lambda_"]) >= 0


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of it."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def compiled(name, seed):
    """A model with all that has a state: BatchNorm, Dropout, momentum, a schedule."""
    keras.utils.set_random_seed(seed)
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(6, "softplus"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3),
        ]
    )
    takes = registry.argument_names(methods.ALL_OBJECTS[name])
    wanted = {"steps": 2, "epsilon": 0.1}
    method = methods.get(name, **{k: v for k, v in wanted.items() if k in takes})
    model = soar_tf.RobustModel(network, method, seed=3)
    rate = keras.optimizers.schedules.CosineDecay(0.05, 8)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, weight_decay=1e-3), run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("soar", "trades") else pytest.param(name, marks=pytest.mark.slow)
        for name in methods.ALL_OBJECTS
    ],
)
def test_every_methods_state_is_in_its_checkpoint(name, tmp_path):
    generator = np.random.default_rng(0)
    batches = [generator.uniform(0, 1, (6, 4, 4, 1)).astype("float32") for _ in range(4)]
    labels = np.arange(6) % 3

    def steps(model, which):
        for i in which:
            model.train_on_batch(batches[i], labels)

    whole = compiled(name, seed=1)
    steps(whole, range(4))
    first = compiled(name, seed=1)
    steps(first, range(2))
    checkpoints.save(tmp_path, first, {"phase": 0, "epoch": 1})
    second = compiled(name, seed=2)  # other weights, to be replaced
    path, _ = checkpoints.newest(tmp_path)
    checkpoints.load(second, path)
    steps(second, range(2, 4))
    for part in ("weights", "optimizer.variables", "network.variables"):
        read = operator.attrgetter(part)
        for a, b in zip(read(whole), read(second), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=a.path)


SELECTING = tuple(
    shlex.split(
        "--epochs 12 --early-stopping 1 --keep-best --learning-rate 0.5 --lr-schedule constant "
        "--monitor val_accuracy"
    )
)


def test_early_stopping_and_the_best_epoch_survive_a_stop_after_every_epoch(
    tmp_path, run_cli, stop_after
):
    run_cli(*STANDARD, *SELECTING, "--workdir", tmp_path / "whole")
    log = rows(tmp_path / "whole")
    figures = [float(row["val_accuracy"]) for row in log]
    best = int(np.argmax(figures)) + 1
    assert best < len(log) < 12, figures  # it did stop, and not at the best epoch
    stored = json.loads((tmp_path / "whole" / "manifest.json").read_text())["best"]
    assert stored == {"epoch": best, "val_accuracy": max(figures)}
    network = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    validation = soar_tf.datasets.load("digits")["validation"]
    right = network.predict(validation.float_images(), verbose=0).argmax(1) == validation.labels
    assert right.mean() == pytest.approx(max(figures))
    stop_after("every")
    for _ in log:
        run_cli(*STANDARD, *SELECTING, "--workdir", tmp_path / "parts", expect=1)
    stop_after(None)
    run_cli(*STANDARD, *SELECTING, "--workdir", tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_the_validation_attack_is_logged_and_chosen_by(tmp_path, run_cli):
    run_cli(
        *STANDARD,
        "--epochs",
        "2",
        "--keep-best",
        "--validation-attack",
        "fgsm",
        "--workdir",
        tmp_path / "run",
    )
    figures = [float(row["val_robust_accuracy"]) for row in rows(tmp_path / "run")]
    result = soar_tf.evaluate(
        keras.saving.load_model(tmp_path / "run" / "model.keras"),
        soar_tf.datasets.load("digits")["validation"].float_images(),
        soar_tf.datasets.load("digits")["validation"].labels,
        ["fgsm:epsilon=0.15"],
    )
    assert result.attacks[0].robust_accuracy == pytest.approx(max(figures))


FALLING = tuple(
    shlex.split("--epochs 8 --learning-rate 0.5 --lr-schedule constant --monitor val_accuracy")
)


def test_a_fall_below_a_share_of_the_best_ends_with_the_best_epoch(tmp_path, run_cli, stop_after):
    run_cli(*STANDARD, *FALLING, "--stop-below", "0", "--workdir", tmp_path / "free")
    free = [float(row["val_accuracy"]) for row in rows(tmp_path / "free")]
    assert len(free) == 8
    best = np.maximum.accumulate(free)
    fall = int(np.argmin(free / best))  # the deepest; a share just above it is crossed there first
    share = float(free[fall] / best[fall]) + 1e-6
    assert 0 < fall < 7 and all(free[:fall] / best[:fall] >= share), free
    arguments = (*STANDARD, *FALLING, "--stop-below", str(share))
    result = run_cli(*arguments, "--workdir", tmp_path / "whole")
    chosen = int(np.argmax(free[:fall])) + 1
    assert f"Epoch {fall + 1}: val_accuracy fell to {free[fall]:.3f}" in result.stderr
    assert f"Training ends with epoch {chosen}," in result.stderr
    assert len(rows(tmp_path / "whole")) == fall + 1
    stored = json.loads((tmp_path / "whole" / "manifest.json").read_text())["best"]
    assert stored == {"epoch": chosen, "val_accuracy": max(free[:fall])}
    network = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    validation = soar_tf.datasets.load("digits")["validation"]
    right = network.predict(validation.float_images(), verbose=0).argmax(1) == validation.labels
    assert right.mean() == pytest.approx(max(free[:fall]))
    # Without a fall the last epoch is the result: nothing was chosen.
    assert "best" not in json.loads((tmp_path / "free" / "manifest.json").read_text())
    stop_after("every")
    for _ in range(fall + 1):
        run_cli(*arguments, "--workdir", tmp_path / "parts", expect=1)
    stop_after(None)
    run_cli(*arguments, "--workdir", tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("method", [["fast"], ["sum", "--method-arg", "methods=fast+standard"]])
def test_one_step_training_is_watched(method, tmp_path, run_cli):
    run_cli(
        "train", "--method", *method, *STANDARD[3:], "--epochs", "1", "--workdir", tmp_path / "run"
    )
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["validation_attack"], config["stop_below"]) == ("pgd5", 0.5)
    assert config["monitor"] == "val_robust_accuracy" and not config["keep_best"]
    assert 0 <= float(rows(tmp_path / "run")[0]["val_robust_accuracy"]) <= 1


def test_the_best_checkpoint_is_kept_and_missed(tmp_path):
    model = compiled("standard", seed=1)
    for epoch in range(1, 6):
        model.train_on_batch(np.full((6, 4, 4, 1), epoch / 9, "float32"), np.arange(6) % 3)
        checkpoints.save(tmp_path, model, {"phase": 1, "epoch": epoch}, best_epoch=2)
        if epoch == 2:
            best = [weight.numpy() for weight in model.weights]
    kept = sorted(path.name[:10] for path in tmp_path.iterdir())
    assert kept == ["001-000002", "001-000004", "001-000005"]
    progress = {"phase": 1, "epoch": 5, "selection": {"best_epoch": 1}}
    assert checkpoints.load_best(tmp_path, model, progress) == 2
    for weight, expected in zip(model.weights, best, strict=True):
        np.testing.assert_array_equal(weight, expected)
    next(tmp_path.glob("001-000002*")).write_bytes(b"damaged")
    with pytest.raises(RunError, match="checkpoint of the best epoch, 2, is damaged or missing"):
        checkpoints.load_best(tmp_path, model, progress)


def test_a_log_that_a_crash_left_behind_is_completed(stopped, run_cli, tmp_path):
    (stopped / "log.csv").unlink()
    run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped)
    assert [row["epoch"] for row in rows(stopped)] == ["1", "2", "3"]
    run_cli(*STANDARD, "--epochs", "3", "--workdir", tmp_path / "whole")
    assert_same_run(tmp_path / "whole", stopped)
    # A crash between the last checkpoint and the log: nothing is left to train.
    (stopped / "log.csv").unlink()
    (stopped / "model.keras").unlink()
    run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped)
    assert_same_run(tmp_path / "whole", stopped)


def test_a_damaged_manifest_is_written_anew(stopped, run_cli):
    (stopped / "manifest.json").write_bytes(b"\xff{")
    result = run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped)
    assert "manifest.json is not valid JSON" in result.stderr
    stored = json.loads((stopped / "manifest.json").read_text())
    assert stored["status"] == "complete" and len(stored["environments"]) == 1


def test_another_environment_is_named_and_must_be_allowed(stopped, run_cli, monkeypatch):
    elsewhere = {**provenance.numerics(), "keras": "3.12.0"}
    monkeypatch.setattr(provenance, "numerics", lambda: elsewhere)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    result = run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped, expect=2)
    assert f"computed with keras {keras.__version__}; here it is 3.12.0" in result.stderr
    assert "--allow-mixed-environment" in result.stderr
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before
    run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped, "--allow-mixed-environment")
    stored = json.loads((stopped / "manifest.json").read_text())["environments"]
    assert [(e["phase"], e["epoch"], e["keras"]) for e in stored] == [
        (0, 0, keras.__version__),
        (0, 2, "3.12.0"),
    ]


def test_another_version_of_the_package_resumes_and_is_recorded(stopped, run_cli, monkeypatch):
    later = {**provenance.numerics(), "soar-tf": "99.0"}
    monkeypatch.setattr(provenance, "numerics", lambda: later)
    run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped)
    first, second = json.loads((stopped / "manifest.json").read_text())["environments"]
    assert first["soar-tf"] != "99.0" and second["soar-tf"] == "99.0"
    assert (second["phase"], second["epoch"]) == (0, 2)


def test_what_can_change_bits_is_recorded(stopped):
    (stored,) = json.loads((stopped / "manifest.json").read_text())["environments"]
    wanted = {
        "tensorflow",
        "keras",
        "numpy",
        "python",
        "soar-tf",
        "processor",
        "cpu_flags",
        "intra_op threads",
        "inter_op threads",
        "onednn",
        "devices",
    }
    assert wanted <= set(stored)
    assert stored["intra_op threads"] >= 1


def test_other_data_are_refused(stopped, run_cli, monkeypatch):
    other = "0" * 64
    monkeypatch.setattr(soar_tf.datasets.Dataset, "fingerprint", lambda self: other)
    monkeypatch.setattr(
        soar_tf.datasets.Dataset, "has_fingerprint", lambda self, known: known == other
    )
    result = run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped, expect=2)
    assert "was begun with other images or labels of data set 'digits'" in result.stderr


def test_links_in_the_folder_are_refused(stopped, tmp_path, run_cli):
    shutil.move(stopped / "checkpoints", tmp_path / "elsewhere")
    (stopped / "checkpoints").symlink_to(tmp_path / "elsewhere")
    result = run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped, expect=2)
    assert "must hold no links. Received: the link checkpoints" in result.stderr


@pytest.mark.parametrize(
    ("number", "call"), [(errno.ENOSPC, "posix_fallocate"), (errno.EROFS, "replace")]
)
def test_a_disk_that_fails_is_one_sentence(stopped, run_cli, monkeypatch, number, call):
    before = sorted(path.name for path in (stopped / "checkpoints").iterdir())

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        result = run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped, expect=1)
    assert f"could not be written ({os.strerror(number)})" in result.stderr
    assert sorted(path.name for path in (stopped / "checkpoints").iterdir()) == before
    run_cli(*STANDARD, "--epochs", "3", "--workdir", stopped)


def test_deterministic_asks_tensorflow_and_is_part_of_the_configuration(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append(True))
    plain = TrainConfig(method="standard", network="mlp", epochs=1)
    experiment.Experiment(plain)
    assert not asked
    config = experiment.Experiment(TrainConfig(**{**plain.to_dict(), "deterministic": True})).config
    assert asked
    with RunDirectory(tmp_path / "run", config):
        pass
    other = experiment.Experiment(plain).config
    with pytest.raises(InputError, match="deterministic is True there and False here"):
        RunDirectory(tmp_path / "run", other)


def test_a_configuration_without_newer_settings_means_their_defaults():
    config = TrainConfig().resolved(fine_tunes=True)
    older = {k: v for k, v in config.to_dict().items() if k not in ("deterministic", "keep_best")}
    assert config.differences(older) == []
    assert config.differences({**older, "seed": 5}) == ["seed"]
