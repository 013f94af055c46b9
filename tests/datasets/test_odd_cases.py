"""Files as people have them: other memory layouts, lost shards, packages that are not there."""

import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from test_access import COUNT, SoarPictures, folder, labels, opened, pictures, prepare

from soar_tf import datasets
from soar_tf.datasets.images import InMemory
from soar_tf.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAR_TF_CACHE", str(tmp_path / "cache"))


FLOATS = pictures().astype(np.float64) / 255
LAYOUTS = {
    "Fortran order": np.asfortranarray(pictures()),
    "every second image": np.repeat(pictures(), 2, axis=0)[::2],
    "big-endian float32": FLOATS.astype(">f4"),
    "big-endian float64": FLOATS.astype(">f8"),
    "float16": FLOATS.astype("f2"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_arrays(name, packed, tmp_path):
    save = np.savez_compressed if packed else np.savez
    save(tmp_path / "set.npz", x_train=LAYOUTS[name], y_train=labels())
    for limit in (0, 10**9):
        found = datasets.load(
            f"npz:{tmp_path / 'set.npz'}", validation_images=0, memory_limit=limit
        )["train"]
        assert found.images.dtype == ("uint8" if LAYOUTS[name].dtype == np.uint8 else "float32")
        np.testing.assert_array_equal(found.images, LAYOUTS[name].astype(found.images.dtype))


@pytest.mark.parametrize("name", ["x_train", "y_train"])
def test_arrays_of_objects_are_refused(name, tmp_path):
    (tmp_path / "arrays").mkdir()
    arrays = {"x_train": pictures(), "y_train": labels()}
    arrays[name] = arrays[name].astype(object)
    for array, values in arrays.items():
        np.save(tmp_path / "arrays" / f"{array}.npy", values)
    with pytest.raises(InputError, match=f"`{name}` of .* must hold numbers. Received: objects"):
        datasets.load(f"npz:{tmp_path / 'arrays'}", memory_limit=0)


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
@pytest.mark.parametrize("limit", [0, 10**9])
def test_a_lost_shard_is_named(kind, limit, tmp_path):
    split = opened(kind, tmp_path, 0)
    shard = split.source.records.paths[1]
    shard.unlink()
    with pytest.raises(InputError, match=shard.name):
        opened(kind, tmp_path, limit)


def test_array_record_that_is_not_installed_is_named(tmp_path, monkeypatch):
    prepare(tmp_path / "tfds", "array_record")
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(InputError, match="array.record"):
        opened("array_record", tmp_path, 0)


def test_a_data_source_of_tensorflow_datasets(tmp_path):
    split = opened("array_record", tmp_path, 0)
    source = SoarPictures(data_dir=tmp_path / "tfds", file_format="array_record").as_data_source(
        split="train"
    )
    found = datasets.from_sequence(source)
    assert len(found) == COUNT and not isinstance(found.source, InMemory)
    np.testing.assert_array_equal(found.images, split.images)
    np.testing.assert_array_equal(found.labels, split.labels)
    assert tfds.__version__


def test_a_grain_data_source():
    grain = pytest.importorskip("grain")
    examples = [(image, int(label)) for image, label in zip(pictures(), labels(), strict=True)]
    for source in (grain.MapDataset.source(examples), grain.MapDataset.source(examples)[:COUNT]):
        found = datasets.from_sequence(source)
        np.testing.assert_array_equal(found.images, pictures())
        np.testing.assert_array_equal(found.labels, labels())


def test_a_folder_that_changes_between_runs(tmp_path):
    name = folder(tmp_path / "folder", suffixes=(".png",))
    first = datasets.load(name, validation_images=0)
    (tmp_path / "folder/train/a/000.png").unlink()
    Image.fromarray(pictures()[1]).save(tmp_path / "folder/train/c/new.png")
    again = datasets.load(name, validation_images=0)
    assert len(again["train"]) == COUNT
    assert again.fingerprint() != first.fingerprint()
    with pytest.raises(InputError, match=r"000.png must be a readable image"):
        first["train"].read(np.arange(COUNT))


def test_a_file_of_the_same_length_and_another_size_is_not_resized_silently(tmp_path):
    name = folder(tmp_path / "folder", suffixes=(".bmp",))
    split = datasets.load(name, validation_images=0, memory_limit=0)["train"]
    Image.fromarray(pictures()[0].transpose(1, 0, 2).copy()[:, :10]).save(tmp_path / "x.bmp")
    file = tmp_path / "folder/train/a/000.bmp"
    content = (tmp_path / "x.bmp").read_bytes()
    file.write_bytes(content.ljust(file.stat().st_size, b"\0")[: file.stat().st_size])
    with pytest.raises((InputError, tf.errors.InvalidArgumentError)):
        split.read([0])
