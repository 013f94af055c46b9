"""`.keras` and `.npz` files from strangers: bombs, paths and networks larger than their weights."""

import io
import json
import zipfile

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf import datasets
from soar_tf.errors import InputError
from soar_tf.models import loading
from soar_tf.models.untrusted import archives, keras_files


def rewritten(source, target, change):
    """Copies a zip file; `change` maps the dictionary of its members to another."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in change(members).items():
            archive.writestr(name, data)
    return target


@pytest.fixture(scope="module")
def network_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("networks") / "network.keras"
    soar_tf.networks.mlp(width=0.1).save(path)
    return path


def test_a_keras_file_with_deflated_members_is_read(network_file, tmp_path):
    path = rewritten(network_file, tmp_path / "again.keras", lambda members: members)
    first, second = (loading.load_network(p).get_weights() for p in (network_file, path))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["../escaped.txt", "/tmp/escaped.txt", "a\\..\\..\\b", "C:/x"])
def test_a_member_that_leaves_the_folder_is_refused(name, network_file, tmp_path):
    path = rewritten(network_file, tmp_path / "bad.keras", lambda m: {**m, name: b"x"})
    with pytest.raises(InputError, match="must hold files inside itself only"):
        loading.load_network(path)


def test_a_link_is_refused(tmp_path):
    info = zipfile.ZipInfo("assets/link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="must hold no links. Received: 'assets/link'"):
        loading.load_network(tmp_path / "bad.keras")


def test_a_zip_bomb_is_refused_before_anything_is_unpacked(network_file, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SMALL_BYTES", 10**6)
    zeros = bytes(2 * 10**6)
    path = rewritten(network_file, tmp_path / "bomb.keras", lambda m: {**m, "assets/a": zeros})
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(InputError, match="must not expand more than 100 times"):
        loading.load_network(path)
    np.savez_compressed(tmp_path / "bomb.npz", x_test=np.zeros(2 * 10**6, "u1"), y_test=[0])
    with pytest.raises(InputError, match="must not expand more than 100 times"):
        datasets.load(f"npz:{tmp_path / 'bomb.npz'}")


def test_too_many_and_double_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for i in range(3):
            archive.writestr(str(i), b"")
    with pytest.raises(InputError, match="must hold at most 2 files. Received: 3"):
        datasets.load(f"npz:{tmp_path / 'a.npz'}")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("x", b"1")
        archive.writestr("x", b"2")
    with pytest.raises(InputError, match="must hold each file once. Received: 'x' twice"):
        datasets.load(f"npz:{tmp_path / 'b.npz'}")


def test_a_configuration_that_asks_for_more_weights_than_are_stored_is_refused(
    network_file, tmp_path
):
    def inflate(members):
        text = members["config.json"].decode()
        config = json.loads(text)
        units = [
            layer["config"]
            for layer in config["config"]["layers"]
            if layer["class_name"] == "Dense"
        ]
        units[0]["units"] = 10**9
        # Keras builds from the shapes that are stored beside the layers.
        return {**members, "config.json": json.dumps(config).encode()}

    path = rewritten(network_file, tmp_path / "huge.keras", inflate)
    with pytest.raises(InputError, match="must build no more weights than it stores"):
        loading.load_network(path)
    assert "add_weight" in keras.layers.Layer.__dict__
    assert keras.layers.Layer.add_weight.__module__.startswith("keras")


def test_a_configuration_file_of_enormous_size_is_refused(network_file, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_files, "MAX_CONFIG_BYTES", 100)
    with pytest.raises(InputError, match="config.json must have at most 100 bytes"):
        loading.load_network(network_file)


def test_a_pickle_in_an_npz_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    array = np.empty(1, object)
    array[0] = Payload()
    data = io.BytesIO()
    np.lib.format.write_array(data, array, allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "evil.npz", "w") as archive:
        archive.writestr("x_test.npy", data.getvalue())
        archive.writestr("y_test.npy", data.getvalue())
    with pytest.raises(InputError, match="objects, which only unsafe pickles can hold"):
        datasets.load(f"npz:{tmp_path / 'evil.npz'}")
    assert not (tmp_path / "written").exists()
