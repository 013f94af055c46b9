"""Every way by which a `.keras` file comes in leads past the check."""

import hostile
import numpy as np
import pytest

import soar_tf
from soar_tf.errors import InputError
from soar_tf.models import loading, zoo


@pytest.fixture
def path(tmp_path):
    hostile.network().save(tmp_path / "honest.keras")
    called = hostile.function("keras.layers", "TFSMLayer")
    change = hostile.calls(called, inputs=str(tmp_path / "program"))
    return hostile.rewritten(tmp_path / "honest.keras", tmp_path / "hostile.keras", change)


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "FILE", "--dataset", "digits"),
        ("train", "--network", "FILE", "--workdir", "out", "--verbose", "0"),
        ("train", "--init-from", "FILE", "--workdir", "out", "--verbose", "0"),
        ("train", "--config", "run.toml", "--workdir", "out", "--verbose", "0"),
        ("transfer", "--source", "FILE", "--target", "FILE", "--output", "out"),
        ("export", "FILE", "out"),
        ("evaluate", "zoo:hostile", "--dataset", "digits"),
        ("export", "zoo:hostile", "out"),
        ("train", "--init-from", "zoo:hostile", "--workdir", "out", "--verbose", "0"),
        ("evaluate", "run", "--dataset", "digits"),
        ("train", "--init-from", "run", "--workdir", "out", "--verbose", "0"),
    ],
    ids=" ".join,
)
def test_commands(arguments, path, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(f"network = '{path}'\n")
    names = zoo.names()
    zoo_folder = tmp_path / "zoo" / "hostile"
    zoo_folder.mkdir(parents=True)
    (zoo_folder / zoo.NETWORK).write_bytes(path.read_bytes())
    if names:
        (zoo_folder / zoo.CARD).write_bytes((zoo.path(names[0]) / zoo.CARD).read_bytes())
    monkeypatch.setenv(zoo.VARIABLE, str(tmp_path / "zoo"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("dataset = 'digits'\n")
    (tmp_path / "run" / "manifest.json").write_text("{}\n")
    (tmp_path / "run" / "model.keras").write_bytes(path.read_bytes())
    result = run_cli(*(str(path) if a == "FILE" else a for a in arguments), expect=2)
    assert "for layer 'door'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_python(path, images, monkeypatch):
    x, y = np.zeros((2, 4, 4, 1), "float32"), np.arange(2)
    refused = pytest.raises(InputError, match="for layer 'door'")
    with refused:
        soar_tf.evaluate(path, x, y, ["fgsm"])
    with refused:
        soar_tf.callbacks.TransferAccuracy(path, (x, y))
    with refused:
        loading.load(path)
    with refused:
        loading.load_network(path)
    with refused:
        loading.as_network(path)
