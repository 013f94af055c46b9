"""A user's own model by the README alone: MobileNetV2 with a softmax head on CIFAR-10."""

import json

import keras
import numpy as np
import pytest

from soar_tf.models import networks


@pytest.mark.slow
def test_mobilenet_with_a_softmax_head(run_cli, cifar10_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    own = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=10)
    own.save("mine.keras")
    trained = run_cli(
        "train",
        "--method",
        "soar",
        "--dataset",
        "cifar10",
        "--data-dir",
        cifar10_folder,
        "--network",
        "mine.keras",
        "--limit",
        256,
        "--batch-size",
        32,
        "--pretrain-epochs",
        1,
        "--epochs",
        1,
        "--evaluate",
        32,
        "--workdir",
        "runs/mine",
        "--json",
    )
    assert "mine.keras: taking off the softmax of layer 'predictions'." in trained.stderr
    assert [row["phase"] for row in trained.json["rows"]] == ["standard", "soar"]

    report = run_cli(
        "evaluate",
        "runs/mine",
        "--attack",
        "pgd20",
        "--limit",
        32,
        "--output",
        "report.json",
        "--json",
    ).json
    assert report["worst_case_accuracy"] <= report["clean_accuracy"]
    assert json.loads((tmp_path / "report.json").read_text())["n"] == 32

    # Trained weights moved, and what is stored is the network of logits up to the same softmax.
    network = keras.saving.load_model("runs/mine/model.keras")
    assert networks.softmax_head(network) is None
    before = networks.to_logits(own).get_weights()
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, network.get_weights(), strict=True))


def test_few_steps_of_a_new_batch_norm_are_said(run_cli, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(10, "softmax"),
        ]
    ).save("mine.keras")
    run_cli(
        "train",
        "--method",
        "standard",
        "--dataset",
        "digits",
        "--network",
        "mine.keras",
        "--limit",
        64,
        "--batch-size",
        32,
        "--epochs",
        1,
        "--evaluate",
        0,
        "--verbose",
        0,
        "--workdir",
        "run",
    )
    # 2 steps: 0.99^2 = 98 % are left.
    said = [str(warning.message) for warning in recwarn if warning.category is UserWarning]
    assert any("After 2 steps" in text and "still 98 %" in text for text in said)
