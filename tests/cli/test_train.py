"""`soar-tf train`: what a run directory holds, and that it resumes."""

import csv
import json
import subprocess
import sys
import time
import tomllib

import keras
import numpy as np
import pytest
import tensorflow as tf

from soar_tf.runs import checkpoints, optimizers


def _rows(folder):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def _weights(folder):
    return keras.saving.load_model(folder / "model.keras").get_weights()


def _same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_run_directory_holds_what_it_promises(tiny_run, digits):
    config = tomllib.loads((tiny_run / "config.toml").read_text())
    assert config["method_args"]["epsilon"] == 0.15
    assert (config["epochs"], config["pretrain_epochs"], config["seed"]) == (1, 2, 0)
    manifest = json.loads((tiny_run / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["dataset"]["fingerprint"] == digits.fingerprint()
    assert {"tensorflow", "keras", "soar-tf"} <= set(manifest["versions"])
    assert [row["phase"] for row in _rows(tiny_run)] == ["standard", "standard", "soar"]
    x = digits["test"].take(5).float_images()
    network = keras.saving.load_model(tiny_run / "model.keras")
    exported = tf.saved_model.load(tiny_run / "saved_model")
    np.testing.assert_allclose(exported.serve(x), network.predict(x, verbose=0), atol=1e-5)


def test_the_saved_model_loads_where_soar_tf_cannot_be_imported(tiny_run, digits, tmp_path):
    x = digits["test"].take(3).float_images()
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys\nsys.modules['soar_tf'] = None\n"
        "import numpy as np, tensorflow as tf\n"
        f"loaded = tf.saved_model.load({str(tiny_run / 'saved_model')!r})\n"
        f"x = tf.constant(np.load({str(tmp_path / 'x.npy')!r}))\n"
        "with tf.GradientTape() as tape:\n    tape.watch(x)\n    out = loaded.serve(x)\n"
        "assert np.abs(tape.gradient(out, x)).max() > 0\n"
        "print(out.numpy().argmax(1).tolist())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    expected = keras.saving.load_model(tiny_run / "model.keras").predict(x, verbose=0).argmax(1)
    assert result.stdout.strip() == str(expected.tolist())


def test_a_finished_run_is_not_trained_again(tiny, tiny_run, run_cli):
    before = (tiny_run / "model.keras").stat().st_mtime_ns
    arguments = [*tiny, "--pretrain-epochs", "2", "--epochs", "1", "--workdir", tiny_run, "--json"]
    result = run_cli("train", *arguments)
    assert (tiny_run / "model.keras").stat().st_mtime_ns == before
    assert "complete already" in result.stderr
    assert [row["phase"] for row in result.json["rows"]] == ["standard", "soar"]


@pytest.mark.parametrize("method", ["soar", "adversarial"])
def test_an_interrupted_run_ends_with_the_same_bits(tiny, method, tmp_path, run_cli, monkeypatch):
    arguments = ["train", "--method", method, *tiny[:-2], "--evaluate", "0", "--epochs", "3"]
    if method == "soar":
        arguments += ["--pretrain-epochs", "2"]
    run_cli(*arguments, "--workdir", tmp_path / "whole")
    saved = checkpoints.save

    def interrupting(folder, model, progress, *rest):
        saved(folder, model, progress, *rest)
        if progress["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", interrupting)
    stopped = run_cli(*arguments, "--workdir", tmp_path / "parts", expect=1)
    assert "the same command resumes from the last checkpoint" in stopped.stderr
    monkeypatch.setattr(checkpoints, "save", saved)
    run_cli(*arguments, "--workdir", tmp_path / "parts")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "parts"))
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "parts")


def test_a_killed_run_ends_with_the_same_bits(tiny, tmp_path, run_cli):
    arguments = ["train", *tiny[:-2], "--evaluate", "0", "--pretrain-epochs", "1", "--epochs", "5"]
    command = [sys.executable, "-m", "soar_tf.cli", *arguments, "--workdir", tmp_path / "killed"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    folder = tmp_path / "killed" / "checkpoints"
    while not list(folder.glob("001-0000*.h5")) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "model.keras").exists()
    run_cli(*arguments, "--workdir", tmp_path / "killed")
    run_cli(*arguments, "--workdir", tmp_path / "whole")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "killed")


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tiny, tmp_path, run_cli, monkeypatch, capsys
):
    arguments = ["train", "--method", "standard", *tiny[:-2], "--evaluate", "0", "--epochs", "3"]
    run_cli(*arguments, "--workdir", tmp_path / "whole")
    saved = checkpoints.save

    def failing(folder, model, progress, *rest):
        saved(folder, model, progress, *rest)
        if progress["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", failing)
    run_cli(*arguments, "--workdir", tmp_path / "damaged", expect=1)
    monkeypatch.setattr(checkpoints, "save", saved)
    newest = max((tmp_path / "damaged" / "checkpoints").glob("*.h5"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    result = run_cli(*arguments, "--workdir", tmp_path / "damaged")
    assert f"Checkpoint {newest.name} is damaged" in result.stderr
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "damaged"))


def test_a_nan_loss_in_the_first_epoch_stops_the_run(tiny, tmp_path, run_cli):
    result = run_cli(
        "train",
        "--method",
        "standard",
        *tiny,
        "--epochs",
        "2",
        "--learning-rate",
        "1e30",
        "--lr-schedule",
        "constant",
        "--workdir",
        tmp_path / "nan",
        expect=1,
    )
    assert "The loss became NaN in epoch 1 of phase 'standard'; no epoch before" in result.stderr
    assert json.loads((tmp_path / "nan" / "manifest.json").read_text())["status"] == "failed"
    assert not (tmp_path / "nan" / "model.keras").exists()


@pytest.mark.parametrize("method", ["standard", "soar"])
def test_a_nan_loss_keeps_the_last_good_weights(method, tiny, tmp_path, run_cli, monkeypatch):
    """The rate explodes in the method's third epoch (of 4 steps each), after two good ones."""
    arguments = ["train", "--method", method, *tiny[:-2], "--evaluate", "0"]
    arguments += ["--pretrain-epochs", "1"] if method == "soar" else []

    def exploding(schedule, peak, total_steps, drops, **_):
        return keras.optimizers.schedules.PiecewiseConstantDecay([8], [0.01, 1e30])

    monkeypatch.setattr(optimizers, "learning_rate", exploding)
    run_cli(*arguments, "--epochs", "2", "--workdir", tmp_path / "good")
    result = run_cli(*arguments, "--epochs", "3", "--workdir", tmp_path / "nan", expect=1)
    assert "in epoch 3" in result.stderr
    assert "the network of epoch 2 is kept in model.keras" in result.stderr
    assert _same(_weights(tmp_path / "good"), _weights(tmp_path / "nan"))
    assert _rows(tmp_path / "good") == _rows(tmp_path / "nan")


def test_a_config_file_and_flags_that_win_over_it(tmp_path, run_cli):
    (tmp_path / "run.toml").write_text(
        'method = "adversarial"\ndataset = "digits"\nnetwork = "mlp"\nepochs = 5\nlimit = 64\n'
        'batch_size = 32\n[method_args]\nsteps = 2\nepsilon = "8/255"\n'
    )
    run_cli(
        "train",
        "--config",
        tmp_path / "run.toml",
        "--epochs",
        "1",
        "--method-arg",
        "steps=3",
        "--evaluate",
        "0",
        "--verbose",
        "0",
        "--workdir",
        tmp_path / "run",
    )
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["epochs"], config["method_args"]["steps"]) == (1, 3)
    assert config["method_args"]["epsilon"] == pytest.approx(8 / 255)
    # The resolved file reproduces the run.
    run_cli(
        "train",
        "--config",
        tmp_path / "run" / "config.toml",
        "--evaluate",
        "0",
        "--verbose",
        "0",
        "--workdir",
        tmp_path / "again",
    )
    assert _same(_weights(tmp_path / "run"), _weights(tmp_path / "again"))


def test_training_starts_from_a_finished_run(tiny_run, tmp_path, run_cli):
    run_cli(
        "train",
        "--method",
        "adversarial",
        "--init-from",
        tiny_run,
        "--dataset",
        "digits",
        "--limit",
        "64",
        "--batch-size",
        "64",
        "--epochs",
        "1",
        "--learning-rate",
        "1e-9",
        "--verbose",
        "0",
        "--evaluate",
        "0",
        "--workdir",
        tmp_path / "tuned",
    )
    for first, second in zip(_weights(tiny_run), _weights(tmp_path / "tuned"), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_users_keras_file_with_batchnorm_dropout_and_softmax(tmp_path, run_cli):
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    network.save(tmp_path / "mine.keras")
    result = run_cli(
        "train",
        "--dataset",
        "digits",
        "--network",
        tmp_path / "mine.keras",
        "--pretrain-epochs",
        "1",
        "--epochs",
        "1",
        "--limit",
        "64",
        "--batch-size",
        "32",
        "--verbose",
        "0",
        "--evaluate",
        "20",
        "--workdir",
        tmp_path / "run",
    )
    assert "taking off the softmax" in result.stderr
    assert "standard" in result.stdout and "soar" in result.stdout


def test_real_cifar10_trains_with_the_papers_network(cifar10_folder, tmp_path, run_cli):
    result = run_cli(
        "train",
        "--dataset",
        "cifar10",
        "--data-dir",
        cifar10_folder,
        "--network",
        "cnn4",
        "--network-arg",
        "width=0.125",
        "--pretrain-epochs",
        "1",
        "--epochs",
        "1",
        "--limit",
        "128",
        "--verbose",
        "0",
        "--evaluate",
        "32",
        "--workdir",
        tmp_path / "run",
        "--json",
    )
    assert result.json["n"] == 32 and result.json["epsilon"] == pytest.approx(8 / 255)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert "the original pixels" in manifest["dataset"]["provenance"]
