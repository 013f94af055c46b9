"""Runs on folders of images: what they say, what they resume, and files that turn corrupt."""

import json

import numpy as np
import pytest
from PIL import Image

from soar_tf.datasets import split
from soar_tf.errors import InputError, RunError
from soar_tf.runs import resuming
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.experiment import Experiment

SETTINGS = {
    "method": "adversarial",
    "network": "mlp",
    "network_args": {"width": 0.25},
    "epochs": 1,
    "batch_size": 8,
}


def folder(root, side=8, count=20):
    for name, grey in (("1", 40), ("2", 120), ("10", 200)):
        for part in ("train", "test"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                image = np.random.RandomState(i).randint(0, 40, (side, side + 2, 3)) + grey
                file = root / part / name / f"{i:02}.png"
                Image.fromarray(image.astype(np.uint8)).save(file)
    (root / "train" / "1" / "notes.txt").write_text("")
    return f"folder:{root}"


def test_what_was_read_is_said_and_samples_are_named(tmp_path, run_cli):
    name = folder(tmp_path / "images")
    run = tmp_path / "run"
    result = run_cli(
        "train",
        "--dataset",
        name,
        "--method",
        "adversarial",
        "--network",
        "mlp",
        "--network-arg",
        "width=0.25",
        "--limit",
        "24",
        "--batch-size",
        "8",
        "--epochs",
        "2",
        "--resize-crop",
        "6",
        "--evaluate",
        "9",
        "--attack",
        "fgsm",
        "--workdir",
        run,
        "--verbose",
        "2",
    )
    said = result.stderr
    assert f"{name}: 3 classes, labels in this order: 1, 10, 2." in said
    assert "train: 60 images, by class 20, 20, 20." in said
    assert "Files of 8x10 to 8x10 pixels (height x width), read as 6x6x3." in said
    assert "Skipped as no images: 1 .txt." in said
    assert "class folder 10 has label 1" in said
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["dataset"]["sample"] == "24 of 54, sampled by class"
    assert manifest["dataset"]["fingerprint"].startswith("files:")
    # The run's own crops, without being told; of every class as many.
    report = run_cli("evaluate", run, "--limit", "9", "--attack", "fgsm", "--json").json
    assert report["data"]["sample"] == "9 of 60, sampled by class"
    text = run_cli("evaluate", run, "--limit", "9", "--attack", "fgsm").stdout
    assert "Sample: 9 of 60, sampled by class." in text
    error = run_cli("evaluate", run, "--image-size", "8x8", expect=2).stderr
    assert "takes images of shape (6, 6, 3)" in error
    silent = run_cli("evaluate", run, "--limit", "9", "--attack", "fgsm", "--verbose", "0")
    assert "in this order" not in silent.stderr


def experiment(root, **settings):
    return Experiment(TrainConfig(dataset=f"folder:{root}", **{**SETTINGS, **settings}))


def test_a_file_that_turns_corrupt_stops_the_run_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(split, "MEMORY_BYTES", 0)
    folder(tmp_path / "images")
    made = experiment(tmp_path / "images")
    file = tmp_path / "images" / "train" / "2" / "07.png"
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes(len(content) - 100))
    with pytest.raises(RunError, match=r"2/07.png must be a readable image.*the same command"):
        made.run(tmp_path / "run", verbose=0)
    file.write_bytes(content)
    assert experiment(tmp_path / "images").run(tmp_path / "run", verbose=0) is not None


def test_streamed_runs_end_with_the_weights_of_runs_in_memory(tmp_path, monkeypatch):
    folder(tmp_path / "images")
    weights = []
    for limit in (0, 2**20):
        monkeypatch.setattr(split, "MEMORY_BYTES", limit)
        made = experiment(tmp_path / "images", limit=40)
        made.run(tmp_path / f"run{limit}", verbose=0)
        weights.append(np.concatenate([w.ravel() for w in made.network.get_weights()]))
    np.testing.assert_array_equal(*weights)


def test_runs_of_versions_that_read_all_images(tmp_path):
    folder(tmp_path / "images", count=6)
    made = experiment(tmp_path / "images")
    pixels = made.dataset.pixel_fingerprint()
    fingerprint = made.dataset.fingerprint()
    resuming.check_data(made.dataset, {"fingerprint": pixels}, fingerprint, "run")
    with pytest.raises(InputError, match="was begun with other images"):
        resuming.check_data(made.dataset, {"fingerprint": pixels[::-1]}, fingerprint, "run")
    # Without a limit nothing has changed; with one, other images would be taken.
    assert resuming.sample(made.dataset, None, {}, "run") == "all"
    limited = experiment(tmp_path / "images", limit=9).dataset
    with pytest.raises(InputError, match="trained on the first 9 images.*cannot be resumed"):
        resuming.sample(limited, 9, {}, "run")
    assert resuming.sample(limited, 9, None, "run") == "9 of 15, sampled by class"
