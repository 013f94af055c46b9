"""`soar-tf train --ema` and `--label-smoothing`."""

import csv
import tomllib

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.runs import checkpoints


def weights(folder):
    return keras.saving.load_model(folder / "model.keras").get_weights()


def rows(folder):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def arguments(tiny):
    return ["train", "--method", "standard", *tiny[:-2], "--evaluate", "0", "--epochs", "2"]


def test_the_kept_network_is_the_average_that_was_validated(
    arguments, tmp_path, run_cli, monkeypatch, digits
):
    seen, saved = [], checkpoints.save

    def watching(folder, model, *rest):
        seen.append([w.numpy() for w in model.trainable_variables])
        saved(folder, model, *rest)

    monkeypatch.setattr(checkpoints, "save", watching)
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    run_cli(*arguments, "--workdir", plain)
    run_cli(*arguments, "--ema", "0.9", "--workdir", averaged)
    # The same weights are trained, bit for bit: the average is only looked at.
    for first, second in zip(seen[1], seen[3], strict=True):
        np.testing.assert_array_equal(first, second)
    for first, second in zip(seen[1], weights(plain), strict=True):
        np.testing.assert_array_equal(first, second)
    assert any((a != b).any() for a, b in zip(seen[3], weights(averaged), strict=True))
    network = keras.saving.load_model(averaged / "model.keras")
    split = digits["validation"]
    accuracy = (network.predict(split.float_images(), verbose=0).argmax(1) == split.labels).mean()
    assert float(rows(averaged)[-1]["val_accuracy"]) == pytest.approx(accuracy, abs=1e-6)


def test_an_interrupted_averaged_run_ends_with_the_same_bits(
    arguments, tmp_path, run_cli, monkeypatch
):
    arguments += ["--ema", "0.9"]
    run_cli(*arguments, "--workdir", tmp_path / "whole")
    saved = checkpoints.save
    for last in (1, 2):  # also after the last epoch, before the network is written

        def interrupting(folder, model, progress, best=None, last=last):
            saved(folder, model, progress, best)
            if progress["epoch"] == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoints, "save", interrupting)
        run_cli(*arguments, "--workdir", tmp_path / "parts", expect=1)
    monkeypatch.setattr(checkpoints, "save", saved)
    run_cli(*arguments, "--workdir", tmp_path / "parts")
    for first, second in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_average_by_hand():
    """Of SGD's steps on a linear loss, w_t = w_0 - t g, with momentum m."""
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    network.set_weights([np.array([[3.0], [4.0]], "float32")])
    model = soar_tf.RobustModel(network, "standard")
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, loss=lambda y, z: z, run_eagerly=True)
    x = np.array([[1.0, 0.5]], "float32")
    model.fit(x, np.zeros(1), epochs=3, verbose=0)
    trained = [np.array([3.0, 4.0]) - t * x[0] for t in (1, 2, 3)]
    average = 0.25 * trained[0] + 0.25 * trained[1] + 0.5 * trained[2]
    np.testing.assert_allclose(network.get_weights()[0][:, 0], average, rtol=1e-6)


def test_label_smoothing_reaches_the_loss(arguments, tmp_path, run_cli):
    run_cli(*arguments, "--label-smoothing", "1/5", "--workdir", tmp_path / "run")
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["label_smoothing"] == 0.2
    # The smoothed loss of 10 classes is at least the entropy of its target.
    target = np.array([0.8 + 0.02, *[0.02] * 9])
    assert float(rows(tmp_path / "run")[-1]["loss"]) >= -(target * np.log(target)).sum()


@pytest.mark.parametrize("labels", [[0, 2], np.eye(3)[[0, 2]]], ids=["integers", "one-hot"])
def test_the_smoothed_loss_by_formula(labels):
    logits = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    target = 0.9 * np.eye(3)[[0, 2]] + 0.1 / 3
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss_fn = soar_tf.training.losses.per_example(soar_tf.training.SmoothedCrossentropy(0.1))
    np.testing.assert_allclose(loss_fn(labels, logits), -(target * log_p).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        ("--ema", "1", "`ema` must be >= 0 and <= 0.99999"),
        ("--ema", "-1", "`ema` must be >= 0"),
        ("--label-smoothing", "2", "`label_smoothing` must be >= 0"),
    ],
)
def test_bad_values(flag, value, sentence, arguments, tmp_path, run_cli):
    result = run_cli(*arguments, flag, value, "--workdir", tmp_path / "run", expect=2)
    assert sentence in result.stderr
    assert not (tmp_path / "run").exists()
