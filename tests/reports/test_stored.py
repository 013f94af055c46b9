"""Images in NPZ files that are read one at a time; `merge` and `plot` hold no more."""

import tracemalloc

import numpy as np
import pytest

from soar_tf import evaluation
from soar_tf.errors import InputError
from soar_tf.evaluation import merging
from soar_tf.evaluation.kept import Chosen
from soar_tf.models.untrusted.archives import open_zip, read_array
from soar_tf.reports import examples
from soar_tf.reports.stored import StoredImages

POSITIONS = [3, 10, 11, 40]


@pytest.fixture
def file(tmp_path):
    images = np.random.RandomState(0).rand(4, 48, 32, 3).astype("float32")
    examples.write_npz(tmp_path / "images.npz", {"other": np.arange(3), "images": images})
    return tmp_path / "images.npz", images


def test_images_come_in_any_order(file):
    path, images = file
    stored = StoredImages(path, "images", POSITIONS)
    assert list(stored) == POSITIONS and stored.shape == (48, 32, 3)
    for row in (0, 2, 3, 1, 1, 0, 3):
        np.testing.assert_array_equal(stored[POSITIONS[row]], images[row])
    with pytest.raises(KeyError):
        stored[4]
    chosen = Chosen([40, 3], [stored, {5: images[0]}])
    assert list(chosen) == [40, 3]
    np.testing.assert_array_equal(chosen[40], images[3])
    stored.close()


@pytest.mark.parametrize("array", [np.zeros((3, 2, 2, 1), "f4"), np.zeros((4, 2, 2, 1), "f8")])
def test_arrays_of_another_form_are_refused(array, tmp_path):
    np.savez(tmp_path / "images.npz", images=array)
    with pytest.raises(ValueError, match="another form"):
        StoredImages(tmp_path / "images.npz", "images", POSITIONS)


def test_damage_is_named_when_it_is_met(tmp_path):
    # Too large for what is unpacked with the header.
    path, images = tmp_path / "images.npz", np.random.RandomState(0).rand(4, 64, 64, 1)
    examples.write_npz(path, {"images": images.astype("float32")})
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\1\2") - 40  # near the end of the packed images
    content[place : place + 20] = bytes(20)
    path.write_bytes(content)
    stored = StoredImages(path, "images", POSITIONS)
    with pytest.raises(InputError, match=r"`report` .*images.npz must be readable"):
        list(stored.values())
    stored.close()


def test_the_first_rows_alone_are_read(tmp_path):
    array = np.arange(24, dtype="float32").reshape(6, 4)
    np.savez(tmp_path / "a.npz", rows=array, columns=np.asfortranarray(array), one=np.float32(3))
    with open_zip(tmp_path / "a.npz", "a", max_bytes=2**20, setting="") as archive:
        for name in ("rows", "columns"):
            np.testing.assert_array_equal(read_array(archive, name, "a", rows=2), array[:2])
            np.testing.assert_array_equal(read_array(archive, name, "a", rows=9), array)
        assert read_array(archive, "one", "a") == 3


def test_shards_with_images_in_files_are_put_together_without_reading_them(tmp_path):
    class Result:
        def __init__(self, positions):
            name = tmp_path / f"{positions[0]}.npz"
            images = np.zeros((len(positions), 256, 256, 3), "float32")
            images += np.array(positions)[:, None, None, None]
            examples.write_npz(name, {"images": images})
            self.kept = StoredImages(name, "images", positions)
            self.shard = evaluation.Shard(1, 2, 40, {"images kept": 40})

    class Found:
        broken_by = np.array(["fgsm"] * 40)

    class Attack:
        name, stages = "fgsm", ()

    shards = [Result(range(start, 40, 2)) for start in (0, 1)]
    tracemalloc.start()
    kept = merging._kept(shards, [Attack], Found)
    assert list(kept) == list(range(40))
    assert all(kept[position][0, 0, 0] == position for position in kept)
    assert tracemalloc.get_traced_memory()[1] < 8 * 256 * 256 * 3 * 4  # of 40 images
    tracemalloc.stop()
    for result in shards:
        result.kept.close()
