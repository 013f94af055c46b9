"""Messages that said something else than what was wrong."""

import errno
import fcntl
import io
import json
import math
import os
import zipfile
from typing import ClassVar

import h5py
import keras
import numpy as np
import pytest

import soar_tf
from soar_tf import datasets, errors, files, validation
from soar_tf.cli.evaluate import report_lines
from soar_tf.errors import InputError
from soar_tf.evaluation import State, corruption_accuracies
from soar_tf.models import exports, loading
from soar_tf.reports import markdown, masking, transfer
from soar_tf.runs import experiment, run_directory, workers
from soar_tf.runs.config import TrainConfig
from soar_tf.threat_model import ThreatModel


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_where_nothing_is_allowed_the_message_says_so():
    assert str(errors.unknown("argument", "x", [])) == "Unknown argument 'x'. Allowed: none."


class TestIntegers:
    @pytest.mark.parametrize("value", [2**31, "1e12", 10**20, 1e30])
    def test_counts_that_tensorflow_cannot_count_to_are_refused(self, value):
        with pytest.raises(InputError, match="`steps` must be at most 2147483647"):
            soar_tf.attacks.PGD(steps=value)

    def test_seeds_keep_every_digit(self):
        for seed in (2**53 + 1, 2**62 + 1, 2**63 - 1):
            assert validation.check_seed(seed) == seed
        with pytest.raises(InputError, match="at most 9223372036854775807"):
            validation.check_seed(2**63)

    def test_schedules_have_a_length_that_steps_can_be_counted_in(self):
        assert soar_tf.methods.Ramp(0, 1, epochs=10).at(0, 10**9).numpy() == 0
        assert soar_tf.methods.Ramp(0, 1, epochs=1e9).at(0, 10**9).numpy() == 0
        for arguments in ({"epochs": 1e30}, {"steps": 1e10}, {"steps": 1, "after": 1e30}):
            with pytest.raises(InputError, match="must be .*<= 1000000000"):
                soar_tf.methods.Ramp(0, 1, **arguments)

    def test_a_network_has_a_depth_that_can_be_built(self):
        with pytest.raises(InputError, match="`depth` must be at most 1000. Received: 60004"):
            soar_tf.networks.wide_resnet(depth=60004)


class TestRuns:
    config = TrainConfig().resolved(fine_tunes=True)

    def test_a_file_system_without_locks_is_not_a_folder_in_use(self, tmp_path, monkeypatch):
        def flock(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(InputError, match="cannot lock files: No locks available"):
            run_directory.RunDirectory(tmp_path / "run", self.config)

    @pytest.mark.parametrize(
        "other", [{"dataset": "cifar10"}, {"method": "trades", "pretrain_epochs": None}]
    )
    def test_another_data_set_is_called_that_and_not_its_batch_size(self, other, tmp_path):
        run_directory.RunDirectory(tmp_path / "run", self.config).close()
        config = TrainConfig(**other).resolved(fine_tunes=True)
        with pytest.raises(InputError, match=f"another configuration: {next(iter(other))} is"):
            run_directory.RunDirectory(tmp_path / "run", config)

    @pytest.mark.parametrize("value", [math.nan, math.inf, 1e300, "7", None, [], {}, True])
    def test_numbers_of_a_manifest_that_are_none(self, value):
        assert experiment._number(value) == 0

    @pytest.mark.parametrize("value", [[], "x", 3, {}, {"replicas": "2"}, {"replicas": [2]}])
    def test_a_manifests_replicas_that_are_none(self, value, capsys):
        workers.say_what_changed(None, {"distribution": value})
        assert capsys.readouterr().err == ""


def test_a_manifest_that_was_tampered_with_does_not_stop_a_run(tiny, tmp_path, run_cli):
    train = ("train", *tiny, "--method", "standard", "--epochs", "1", "--workdir", tmp_path / "run")
    run_cli(*train, "--evaluate", "0")
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    odd = {"status": "running", "resumes": math.nan, "seconds": math.inf, "distribution": []}
    path.write_text(json.dumps({**manifest, **odd, "environments": 3}))
    run_cli(*train, "--evaluate", "0")
    manifest = json.loads(path.read_text())
    assert manifest["status"] == "complete" and manifest["resumes"] == 1


class TestFullDisk:
    def test_a_file_that_cannot_be_written_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left") as error:
            files.write_text(tmp_path / "report.md", "x")
        assert error.value.filename == str(tmp_path / "report.md")

    def test_a_state_is_named(self, tmp_path, monkeypatch):
        state = State(tmp_path / "a.state")
        state.save(always=True)
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left") as error:
            state.set_section("a", 1)
        assert error.value.filename == str(tmp_path / "a.state")

    def test_the_command_line_names_it(self, tmp_path, monkeypatch, run_cli):
        network = soar_tf.networks.mlp()
        network.save(tmp_path / "m.keras")
        monkeypatch.setattr(files, "sync", full_disk)
        arguments = ("--dataset", "digits", "--limit", "8", "--attack", "fgsm", "--verbose", "0")
        place = tmp_path / "x.json"
        result = run_cli("evaluate", tmp_path / "m.keras", *arguments, "--output", place, expect=1)
        assert result.stderr == f"Failed: {place}: No space left on device.\n"

    @pytest.mark.parametrize("name", ["m.keras", "saved"])
    def test_an_export_finds_out_before_it_writes(self, name, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "posix_fallocate", full_disk)
        network = soar_tf.networks.mlp()
        with pytest.raises(InputError, match=f"{name} cannot be written: No space left on device"):
            exports.export(network, tmp_path / name, exports.guess(name))
        assert not list(tmp_path.iterdir())


def test_weights_that_are_missing_are_named_and_not_counted(tmp_path):
    path = tmp_path / "m.keras"
    soar_tf.networks.mlp(width=0.1).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        del file["layers/dense_1/vars/1"]
    members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="expected 2 variables, but received 1") as error:
        loading.load_network(path)
    assert "A total of" not in str(error.value) and "\n" not in str(error.value)


def test_what_was_set_apart_is_shown(tmp_path):
    arrays = {"x_train": np.zeros((40, 4, 4, 1), "u1"), "y_train": np.arange(40) % 4}
    np.savez(tmp_path / "set.npz", **arrays)
    assert datasets.load(f"npz:{tmp_path}/set.npz").reading == (
        "Validation: 4 of 40 training images, stratified by class, split seed 0.",
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            content = keras.utils.img_to_array(keras.utils.array_to_img(np.zeros((4, 4, 3))))
            keras.utils.save_img(tmp_path / name / f"{number}.png", content)
    (tmp_path / "set.npz").unlink()
    first, *_, last = datasets.load(f"folder:{tmp_path}").reading
    assert first.endswith(
        "without splits: 4 of 20 images, stratified by class, became test (split seed 0)."
    )
    assert last.startswith("Validation: 2 of 16 training images, stratified by class")


RATES = {0.02: "0.02", 3.4: "3.4", 120.0: "120", 0.0: "-"}


@pytest.fixture
def report(stored_report):
    return stored_report


@pytest.mark.parametrize("rate", RATES)
def test_few_images_per_second_are_not_none(rate, report):
    report["attacks"][0]["images_per_second"] = rate
    (line,) = (
        line for line in "\n".join(report_lines(report)).splitlines() if line.startswith("pgd20")
    )
    assert line.split()[-1] == RATES[rate]
    assert f"| 1.0 | {RATES[rate]} |" in markdown(report)


TAG = "<img src=x onerror=alert(1)>"


def test_names_stay_text_in_markdown(report):
    report |= {"model": f"{TAG}.keras", "dataset": f"folder:{TAG}", "note": TAG}
    report["attacks"][0]["name"] = TAG
    report["data"] = {"fingerprint": TAG, "provenance": f"![x](http://example.org/{TAG})"}
    report["environment"] |= {"command": f"soar-tf `{TAG}`", "processor": TAG}
    text = markdown(report)
    spans = text.split("`")  # what is in a code span is no tag
    assert "<img" not in "".join(spans[::2]) and "![x](" not in text
    assert f"Command: `soar-tf '{TAG}'`" in text


def test_names_stay_text_in_a_transfer_table():
    text = transfer._markdown(
        {
            "attack": TAG,
            "norm": "linf",
            "epsilon": 0.1,
            "n": 3,
            "dataset": TAG,
            "split": "test",
            "seed": 0,
            "note": TAG,
            "sources": [TAG],
            "targets": [f"{TAG}|"],
            "clean_accuracy": {f"{TAG}|": 1.0},
            "white_box": {f"{TAG}|": 0.5},
            "accuracy": {TAG: {f"{TAG}|": 0.5}},
        }
    )
    assert "<img" not in text


class TestStoredSections:
    """What a state file keeps beside its tables, tampered with."""

    @pytest.mark.parametrize(
        "shares",
        [
            None,
            "x",
            {},
            [],
            [0.5] * 4,
            [0.5] * 6,
            [0.5, 0.5, 0.5, 0.5, "1"],
            [0.5, 0.5, 0.5, 0.5, 1.5],
            [0.5, 0.5, 0.5, 0.5, -0.5],
            [0.5, 0.5, 0.5, 0.5, math.nan],
            [0.5, 0.5, 0.5, 0.5, 0.123],  # of four images there is no such share
        ],
    )
    def test_accuracies_on_corrupted_images(self, shares, digits, tmp_path):
        images = digits["test"].take(4)
        network = soar_tf.networks.mlp(width=0.1)
        arguments = network, images.float_images(), images.labels, ["contrast"]
        state = State(tmp_path / "s")
        corruption_accuracies(*arguments, state=state)
        state.set_section("corruptions", {"contrast": shares})
        with pytest.raises(InputError, match="is damaged: its accuracies on contrast"):
            corruption_accuracies(*arguments, state=State(tmp_path / "s"))

    good: ClassVar = {
        "verdict": "warn",
        "n": 4,
        "checks": [
            {"name": "a", "verdict": "pass", "figure": 0.5, "sentence": "s"},
            {"name": "b", "verdict": "warn", "figure": 0.5, "sentence": "s"},
        ],
        "broken": [0, 3],
        "indicators": {"indicators": [{"name": "i", "images": [1], "sentence": "s"}]},
    }

    def test_masking_checks(self, tmp_path):
        assert masking._possible(self.good, 4)
        check = self.good["checks"][0]
        for change in (
            {"verdict": "pass"},
            {"verdict": None},
            {"n": 5},
            {"checks": []},
            {"checks": 3},
            {"checks": [check | {"figure": math.inf}]},
            {"checks": [check | {"figure": "1"}]},
            {"checks": [check | {"sentence": 3}]},
            {"checks": [{"name": "a"}]},
            {"broken": [4]},
            {"broken": [-1]},
            {"broken": ["0"]},
            {"broken": 3},
            {"indicators": []},
            {"indicators": {"indicators": [{"name": "i", "images": [9], "sentence": "s"}]}},
        ):
            assert not masking._possible(self.good | change, 4), change
        for found in (None, [], 3, "x", {}):
            assert not masking._possible(found, 4)

    def test_a_tampered_masking_report_is_refused(self, tmp_path):
        state = State(tmp_path / "s")
        belongs = {"epsilon": 0.1, "source": None}
        bad = self.good | {"verdict": "pass"}
        state.set_section("masking", {"belongs": belongs, "report": bad})
        threat, state = ThreatModel("linf", 0.1), State(tmp_path / "s")
        with pytest.raises(InputError, match="is damaged: its masking checks are none of 4"):
            masking.checks(None, None, [0, 0, 0, 0], threat, 0, 8, None, state)
