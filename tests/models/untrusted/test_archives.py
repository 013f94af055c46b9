"""`.keras` and `.npz` files from strangers: bombs, paths and networks larger than their weights."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

import soar_tf
from soar_tf import datasets
from soar_tf.errors import InputError
from soar_tf.models import loading
from soar_tf.models.untrusted import archives, hdf5, keras_files


def rewritten(source, target, change):
    """Copies a zip file; `change` maps the dictionary of its members to another."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in change(members).items():
            archive.writestr(name, data)
    return target


def with_weights(source, target, change):
    """Copies a `.keras` file; `change` is called with its weights, open for writing."""

    def rewrite(members):
        path = target.with_suffix(".h5")
        path.write_bytes(members["model.weights.h5"])
        with h5py.File(path, "r+") as file:
            change(file)
        return {**members, "model.weights.h5": path.read_bytes()}

    return rewritten(source, target, rewrite)


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


WEIGHTS = "layers/dense/vars/0"


def replace(file, **how):
    del file[WEIGHTS]
    file.create_dataset(WEIGHTS, **how)


class TestWeights:
    """Weights are looked at before Keras, and before anything is read of them."""

    def refuse(self, network_file, tmp_path, change, message):
        path = with_weights(network_file, tmp_path / "hostile.keras", change)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("it was opened"))
            with pytest.raises(InputError, match=message):
                loading.load_network(path)

    def test_the_honest_file_has_such_weights(self, network_file, tmp_path):
        path = with_weights(network_file, tmp_path / "same.keras", lambda file: file[WEIGHTS])
        assert loading.load_network(path)

    @pytest.mark.parametrize(
        "how",
        [
            {"chunks": (2**20,)},
            {"chunks": (2**20,), "compression": "gzip"},
            {"chunks": (2**20,), "fillvalue": 1.0},
            {"maxshape": (None,)},
            {},  # nothing is stored of an array that was never written
        ],
        ids=str,
    )
    def test_arrays_of_which_little_is_stored_are_refused(self, how, network_file, tmp_path):
        def change(file):
            replace(file, shape=(2**31,), dtype="f4", **how)

        message = r"must not hold weights that expand more than 100 times. Received: \d+ bytes"
        self.refuse(network_file, tmp_path, change, message)

    def test_chunks_far_larger_than_their_array_are_refused(self, network_file, tmp_path):
        def change(file):
            replace(file, shape=(1,), dtype="f4", chunks=(2**28,), maxshape=(None,))

        self.refuse(network_file, tmp_path, change, "that expand more than 100 times")

    def test_many_small_arrays_of_which_nothing_is_stored_are_refused(self, network_file, tmp_path):
        def change(file):
            for number in range(20):
                file.create_dataset(f"zeros/{number}", (2**20,), "f4", chunks=(2**18,))

        self.refuse(network_file, tmp_path, change, "0 bytes|that expand more than 100 times")

    def test_more_than_the_bound_is_refused(self, network_file, tmp_path, monkeypatch):
        monkeypatch.setattr(hdf5, "MAX_BYTES", 100)
        self.refuse(network_file, tmp_path, lambda file: None, "at most 100 bytes of weights")

    def test_a_network_must_not_be_larger_than_arrays_that_are_stored(self, network_file, tmp_path):
        """What declares much and stores little must not make room for a huge network either."""

        def change(file):
            file.create_dataset("zeros", (2**33,), "f4", chunks=(2**20,))

        self.refuse(network_file, tmp_path, change, "at most 17179869184 bytes of weights")

    def test_values_in_another_file_are_refused(self, network_file, tmp_path):
        (tmp_path / "secret").write_bytes(bytes(4096))
        outside = [(str(tmp_path / "secret"), 0, 4096)]

        def change(file):
            replace(file, shape=(64, 16), dtype="f4", external=outside)

        message = "'/layers/dense/vars/0', whose values are in another file"
        self.refuse(network_file, tmp_path, change, message)

        def virtual(file):
            layout = h5py.VirtualLayout((64, 16), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (64, 16))
            del file[WEIGHTS]
            file.create_virtual_dataset(WEIGHTS, layout)

        self.refuse(network_file, tmp_path, virtual, message)

    @pytest.mark.parametrize(
        "link",
        [
            h5py.ExternalLink("/etc/secret.h5", "/x"),
            h5py.ExternalLink("elsewhere.h5", "/"),
            h5py.SoftLink("/layers"),
            h5py.SoftLink("/nowhere"),
        ],
        ids=lambda link: f"{type(link).__name__} {link.path}",
    )
    def test_links_are_refused(self, link, network_file, tmp_path):
        def change(file):
            file["layers/other"] = link

        self.refuse(network_file, tmp_path, change, "must hold no links. Received: '/layers/other'")

    def test_a_group_inside_itself_ends(self, network_file, tmp_path):
        def change(file):
            file["layers/again"] = file["layers"]

        path = with_weights(network_file, tmp_path / "loop.keras", change)
        assert loading.load_network(path)

    def test_too_many_arrays_are_refused(self, network_file, tmp_path, monkeypatch):
        monkeypatch.setattr(hdf5, "MAX_OBJECTS", 3)
        self.refuse(network_file, tmp_path, lambda file: None, "at most 3 arrays and groups")

    def test_text_and_references_are_refused(self, network_file, tmp_path):
        for dtype in (h5py.string_dtype(), h5py.ref_dtype, "S10", [("a", "f4"), ("b", "i4")]):

            def change(file, dtype=dtype):
                replace(file, shape=(4,), dtype=dtype)

            self.refuse(network_file, tmp_path, change, "must hold numbers. Received: '/layers/")

    def test_the_other_format_of_weights_is_refused(self, network_file, tmp_path):
        """Its arrays are an archive inside the archive."""
        path = rewritten(
            network_file, tmp_path / "a.keras", lambda m: {**m, "model.weights.npz": b""}
        )
        with pytest.raises(InputError, match="in model.weights.h5, not model.weights.npz"):
            loading.load_network(path)

    def test_half_precision_weights_are_read(self, tmp_path):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="bfloat16")])
        model.save(tmp_path / "half.keras")
        assert loading.load_network(tmp_path / "half.keras")
