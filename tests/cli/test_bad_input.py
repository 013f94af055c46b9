"""Bad input: one clear sentence, exit code 2, nothing written."""

import zipfile

import keras
import numpy as np
import pytest

TRAIN = ("train", "--dataset", "digits", "--verbose", "0")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--method", "saor"), "Unknown method 'saor'. Did you mean 'soar'?"),
        (("--method-arg", "lamda_=1"), "Did you mean 'lambda_'?"),
        (("--method-arg", "epsilon=-1"), "`epsilon` must be >= 0 and <= 1. Received: '-1'."),
        (("--method-arg", "epsilon=nan"), "`epsilon` must be a finite number"),
        (("--method-arg", "epsilon=abc"), "`epsilon` must be a finite number"),
        (("--method-arg", "epsilon=8"), "write 8/255 for 0-255"),
        (("--method-arg", "epsilon"), "is not of the form KEY=VALUE"),
        (("--method-arg", "alpha=0"), "`alpha` must be > 0. Received: '0'."),
        (("--method-arg", "init=pgd2"), "Did you mean 'pgd1'?"),
        (("--method-arg", "num_directions=1.5"), "`num_directions` must be an integer"),
        (("--network", "cnn5"), "Unknown network 'cnn5'. Did you mean 'cnn4'?"),
        (("--network", "cnn4"), "at least 16x16"),
        (("--network-arg", "widht=2"), "Did you mean 'width'?"),
        (("--network-arg", "width=0"), "`width` must be > 0. Received: '0'."),
        (("--network", "nowhere.keras"), "does not exist"),
        (("--init-from", "nowhere"), "`init_from` nowhere does not exist."),
        (("--limit", "0"), "0 is not in the range x>=1"),
        (("--epochs", "0"), "0 is not in the range x>=1"),
        (("--learning-rate", "-1"), "`learning_rate` must be > 0"),
        (("--lr-schedule", "cosine"), "'cosine' is not one of"),
        (("--method", "standard", "--pretrain-epochs", "3"), "for methods that fine-tune"),
        (("--config", "nowhere.toml"), "cannot be read"),
        (("--seed", "-1"), "-1 is not in the range x>=0"),
        (("--precision", "float8"), "'float8' is not one of"),
    ],
)
def test_train_refuses(arguments, sentence, tmp_path, run_cli):
    result = run_cli(*TRAIN, *arguments, "--workdir", tmp_path / "run", expect=2)
    assert sentence in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("digit", "Did you mean 'digits'?"),
        ("npz:nowhere.npz", "nowhere.npz"),
        ("folder:nowhere", "nowhere"),
        ("tfds:no_such_set", "no_such_set"),
    ],
)
def test_train_refuses_data_sets(dataset, sentence, tmp_path, run_cli):
    result = run_cli(
        "train", "--dataset", dataset, "--data-dir", tmp_path / "data", "--workdir",
        tmp_path / "run", expect=2,
    )  # fmt: skip
    assert sentence in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("epochs = ", "is not valid TOML"),
        ("epoch = 3", "Did you mean 'epochs'?"),
        ('epochs = "3"', "`epochs` in"),
        ("epochs = true", "`epochs` in"),
        ("epochs = 0", "`epochs` must be >= 1. Received: 0."),
        ("[method_args]\nepsilon = 8", "write 8/255"),
        ('optimizer = "sdg"', "Did you mean 'sgd'?"),
    ],
)
def test_train_refuses_config_files(content, sentence, tmp_path, run_cli):
    (tmp_path / "run.toml").write_text(content)
    result = run_cli(
        *TRAIN, "--config", tmp_path / "run.toml", "--workdir", tmp_path / "run", expect=2
    )
    assert sentence in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_configuration_is_refused(tiny_run, run_cli):
    before = (tiny_run / "config.toml").read_bytes()
    result = run_cli(*TRAIN, "--workdir", tiny_run, expect=2)
    assert "holds a run of another configuration" in result.stderr
    assert (tiny_run / "config.toml").read_bytes() == before


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
    from soar_tf.config import TrainConfig
    from soar_tf.errors import InputError
    from soar_tf.experiments.run_directory import RunDirectory

    config = TrainConfig().resolved(fine_tunes=True)
    with RunDirectory(tmp_path / "run", config):
        with pytest.raises(InputError, match="in use by another process"):
            RunDirectory(tmp_path / "run", config)
    RunDirectory(tmp_path / "run", config).close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--attack", "pdg20"), "Unknown attack 'pdg20'. Did you mean 'pgd20'?"),
        (("--attack", "pgd20:stpes=3"), "Did you mean 'steps'?"),
        (("--attack", "pgd20:epsilon=8"), "write 8/255 for 0-255"),
        (("--attack", "pgd20:epsilon=-1"), "`epsilon` must be >= 0"),
        (("--attack", "pgd20:epsilon=nan"), "`epsilon` must be a finite number"),
        (("--attack", "pgd20:epsilon=abc"), "`epsilon` must be a finite number"),
        (("--attack", "pgd20:steps"), "name:key=value"),
        (("--attack", "pgd0"), "`steps` must be >= 1"),
        (("--epsilon", "8"), "write 8/255 for 0-255"),
        (("--limit", "0"), "0 is not in the range x>=1"),
        (("--split", "all"), "'all' is not one of"),
        (("--output", "nowhere/report.json"), "the folder nowhere does not exist"),
        (("--dataset", "digit"), "Did you mean 'digits'?"),
    ],
)
def test_evaluate_refuses(arguments, sentence, tiny_run, run_cli):
    result = run_cli("evaluate", tiny_run, *arguments, expect=2)
    assert sentence in result.stderr
    assert result.stdout == ""


def _empty_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "not a model")


def _lambda_model(path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Lambda(lambda x: x[:, 0, :, 0])])
    model.save(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 truncated"),
        lambda path: path.write_text("hello"),
        _empty_zip,
        _lambda_model,
    ],
    ids=["empty", "truncated", "text", "foreign zip", "lambda"],
)
def test_evaluate_refuses_foreign_model_files(write, tmp_path, run_cli):
    path = tmp_path / "model.keras"
    write(path)
    result = run_cli("evaluate", path, "--dataset", "digits", expect=2)
    assert f"`model` {path} cannot be read as a Keras model" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_evaluate_refuses_other_paths(tmp_path, tiny_run, run_cli):
    result = run_cli("evaluate", tmp_path / "none", "--dataset", "digits", expect=2)
    assert "does not exist" in result.stderr
    result = run_cli("evaluate", tmp_path, "--dataset", "digits", expect=2)
    assert "must be a run directory, a .keras file or a SavedModel folder" in result.stderr
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x00garbage")
    result = run_cli("evaluate", tmp_path / "saved", "--dataset", "digits", expect=2)
    assert "cannot be read as a SavedModel" in result.stderr
    result = run_cli("evaluate", tiny_run / "model.keras", expect=2)
    assert "`dataset` is needed" in result.stderr


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


def test_a_saved_model_that_gives_probabilities_is_refused(tmp_path, run_cli):
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    )
    network.export(str(tmp_path / "saved"), verbose=False)
    result = run_cli("evaluate", tmp_path / "saved", "--dataset", "digits", expect=2)
    assert "outputs are probabilities" in result.stderr


def test_export_refuses_a_used_folder(tiny_run, tmp_path, run_cli):
    (tmp_path / "thesis.txt").write_text("precious")
    result = run_cli("export", tiny_run, tmp_path, expect=2)
    assert "must not exist yet, or be empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_list_refuses_an_unknown_kind(run_cli):
    assert "'method' is not one of" in run_cli("list", "method", expect=2).stderr
