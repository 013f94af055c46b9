"""Folders in use and data that do not fit: what the table of bad inputs cannot hold."""

import numpy as np
import pytest

import soar_tf

TRAIN = ("train", "--dataset", "digits", "--verbose", "0")


def test_a_workdir_of_another_configuration_is_refused(tiny_run, run_cli):
    before = (tiny_run / "config.toml").read_bytes()
    result = run_cli(*TRAIN, "--workdir", tiny_run, expect=2)
    assert "holds a run of another configuration" in result.stderr
    assert (tiny_run / "config.toml").read_bytes() == before


def test_arguments_newer_than_a_run_have_their_defaults_there(tmp_path):
    import dataclasses

    from soar_tf.errors import InputError
    from soar_tf.runs.config import TrainConfig
    from soar_tf.runs.run_directory import RunDirectory

    config = TrainConfig(method_args={"alpha": 0.02}).resolved(fine_tunes=True)
    RunDirectory(tmp_path / "run", config).close()  # as if SOAR had no other argument then
    newer = {"alpha": 0.02, "step_direction": "steepest"}
    RunDirectory(tmp_path / "run", dataclasses.replace(config, method_args=newer)).close()
    for other in ({"alpha": 0.03}, {"alpha": 0.02, "step_direction": "gradient"}):
        with pytest.raises(InputError, match="another configuration: method_args is"):
            RunDirectory(tmp_path / "run", dataclasses.replace(config, method_args=other))


def test_a_foreign_workdir_is_refused_and_left_alone(tmp_path, run_cli):
    (tmp_path / "thesis.txt").write_text("precious")
    result = run_cli(*TRAIN, "--workdir", tmp_path, expect=2)
    assert "`workdir` must be empty" in result.stderr and "thesis.txt" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    result = run_cli(*TRAIN, "--workdir", tmp_path / "file", expect=2)
    assert "`workdir` must be a folder" in result.stderr
    result = run_cli(*TRAIN, "--workdir", "/proc/run", expect=2)
    assert "cannot be written" in result.stderr


def test_a_workdir_in_use_is_refused(tmp_path, run_cli):
    from soar_tf.errors import InputError
    from soar_tf.runs.config import TrainConfig
    from soar_tf.runs.run_directory import RunDirectory

    config = TrainConfig().resolved(fine_tunes=True)
    in_use = pytest.raises(InputError, match="in use by another process")
    with RunDirectory(tmp_path / "run", config), in_use:
        RunDirectory(tmp_path / "run", config)
    RunDirectory(tmp_path / "run", config).close()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"hello"])
def test_a_foreign_model_file_is_one_line(content, tmp_path, run_cli):
    (tmp_path / "model.keras").write_bytes(content)
    result = run_cli("evaluate", tmp_path / "model.keras", "--dataset", "digits", expect=2)
    assert "cannot be read as a Keras model" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_evaluate_refuses_data_that_does_not_fit_the_network(tiny_run, tmp_path, run_cli):
    def check(sentence, **arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        result = run_cli("evaluate", tiny_run, "--dataset", f"npz:{tmp_path}/data.npz", expect=2)
        assert sentence in result.stderr

    labels = np.arange(4)
    check("takes images of shape (8, 8, 1)", x_test=np.zeros((4, 9, 9, 1), "uint8"), y_test=labels)
    check("`x_test`", x_test=np.full((4, 8, 8, 1), 3.0, "float32"), y_test=labels)
    check("has 10 classes", x_test=np.zeros((4, 8, 8, 1), "uint8"), y_test=labels + 20)
    check("`y_test`", x_test=np.zeros((0, 8, 8, 1), "uint8"), y_test=labels[:0])


def test_export_refuses_a_used_folder(tiny_run, tmp_path, run_cli):
    (tmp_path / "thesis.txt").write_text("precious")
    result = run_cli("export", tiny_run, tmp_path, expect=2)
    assert "must not exist yet, or be empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("option", ["--workdir", "--config", "--data-dir", "--init-from"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "must be a path. Received: ''"),
        ("x" * 300, "File name too long"),
        ("\udcff\udcfe", "must be a path in UTF-8"),
    ],
    ids=["empty", "long", "not UTF-8"],
)
def test_what_cannot_be_a_path(option, path, message, tmp_path, monkeypatch, run_cli):
    monkeypatch.chdir(tmp_path)
    other = () if option == "--workdir" else ("--workdir", "out")
    result = run_cli("train", *other, option, path, expect=2)
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", [f"seed = {'1' * 5000}", "x = " + "[" * 9999], ids=["long", "deep"]
)
def test_a_configuration_that_python_cannot_read(text, tmp_path, run_cli):
    (tmp_path / "run.toml").write_text(text)
    run, out = tmp_path / "run.toml", tmp_path / "out"
    result = run_cli("train", "--config", run, "--workdir", out, expect=2)
    assert "nests too deeply or holds an integer" in result.stderr
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, run_cli):
    path = tmp_path / "mlp.keras"
    soar_tf.networks.mlp().save(path)
    result = run_cli("export", path, "/proc/exported", expect=2)
    assert "`path` /proc/exported cannot be written: No such file or directory." in result.stderr


@pytest.mark.parametrize("option", ["--dataset", "--method", "--network", "--attack"])
def test_an_empty_name_is_not_the_default(option, tmp_path, run_cli):
    result = run_cli("train", "--workdir", tmp_path / "out", option, "", expect=2)
    assert f"'{option}': it must be a name. Received: ''." in result.stderr
    assert not (tmp_path / "out").exists()
