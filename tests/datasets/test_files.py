"""`npz:FILE` and `folder:DIR`: what is read, and one sentence for each thing that is refused."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soar_tf import datasets
from soar_tf.datasets import npz
from soar_tf.errors import InputError


def arrays(**changes):
    good = {
        "x_train": np.zeros((40, 4, 5, 3), np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": np.full((8, 4, 5, 3), 255, np.uint8),
        "y_test": np.arange(8) % 4,
    } | changes
    return {name: array for name, array in good.items() if array is not None}


def save(folder, **changes):
    path = folder / "set.npz"
    np.savez(path, **arrays(**changes))
    return f"npz:{path}"


def test_npz_is_read(tmp_path):
    dataset = datasets.load(save(tmp_path, y_train=(np.arange(40) % 4)[:, None]))
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 36,
        "validation": 4,
        "test": 8,
    }
    assert (dataset.num_classes, dataset.image_shape, dataset.augment) == (4, (4, 5, 3), False)
    assert (np.bincount(dataset["validation"].labels) == 1).all()


def test_npz_needs_only_the_wanted_split_and_gives_greyscale_a_channel(tmp_path):
    name = save(tmp_path, x_train=None, y_train=None, x_test=np.zeros((8, 4, 5), np.float64))
    dataset = datasets.load(name, splits=("test",))
    assert dataset["test"].images.shape == (8, 4, 5, 1)
    assert dataset["test"].images.dtype == np.float32
    with pytest.raises(InputError, match=r"`splits` must name .* has: test. Received: train"):
        datasets.load(name, splits=("train",))


def test_number_of_classes_does_not_depend_on_the_wanted_splits(tmp_path):
    name = save(tmp_path, y_test=np.zeros(8, int))
    assert datasets.load(name, splits=("test",)).num_classes == 4


def test_train_is_the_same_whether_or_not_validation_is_wanted(tmp_path):
    images = np.arange(40 * 60, dtype=np.uint8).reshape(40, 4, 5, 3)
    name = save(tmp_path, x_train=images)
    alone = datasets.load(name, splits=("train",))["train"]
    np.testing.assert_array_equal(alone.images, datasets.load(name)["train"].images)
    assert len(alone) == 36


X, Y = (40, 4, 5, 3), 40


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x_train": np.full(X, 255.0)}, "minimum 255, maximum 255. Divide by 255, or store uint8"),
        ({"x_train": np.full(X, -0.5)}, r"float pixels in \[0, 1\]. Received: minimum -0.5"),
        ({"x_train": np.full(X, np.nan)}, "`x_train` .* must be finite. Received: NaN"),
        ({"x_train": np.full(X, np.inf)}, "`x_train` .* must be finite"),
        ({"x_train": np.ones(X, "u1")}, "none above 1, which would be almost black; divide by 1 "),
        ({"x_test": np.full((8, 4, 5, 3), 16, "u1")}, "`x_test` .* none above 16, which would be"),
        ({"x_train": np.full(X, 31, "u1")}, "none above 31, .* divide by 31 and store float32"),
        ({"x_train": np.full(X, 1 / 255)}, "none above 0.00392, as if .* divided by 255 twice"),
        ({"x_train": np.ones(X, bool)}, r"uint8 \(0-255\) or float .* Received: dtype bool"),
        ({"x_train": np.ones(X, np.uint16)}, "Received: dtype uint16"),
        ({"x_train": np.zeros(X, np.int64)}, r"uint8 \(0-255\) or float .* Received: dtype int64"),
        ({"x_train": np.zeros((40, 60), "u1")}, r"\[N, H, W\] or .* Received: shape \(40, 60\)"),
        ({"x_train": np.zeros((0, 4, 5), "u1")}, r"`x_train` .* Received: shape \(0, 4, 5\)"),
        ({"x_train": np.zeros((40, 0, 5), "u1")}, r"`x_train` .* Received: shape \(40, 0, 5\)"),
        ({"x_train": np.zeros((39, 4, 5, 3), "u1")}, "Received: 39 images and 40 labels"),
        ({"x_test": np.zeros((8, 4, 4, 3), "u1")}, r"must have shape .* \(4, 4, 3\) in split"),
        ({"y_train": np.full(Y, -1)}, r"`y_train` .* must lie in 0..65535. Received: -1"),
        ({"y_train": np.full(Y, 10**9)}, r"must lie in 0..65535. Received: 1000000000"),
        ({"y_train": np.zeros(Y)}, "`y_train` .* must be integers. Received: dtype float64"),
        ({"y_train": np.eye(40, 4)}, r"shape \(40, 4\) \(one-hot labels\?"),
        ({"y_train": np.zeros(0, int)}, r"`y_train` .* N > 0. Received: shape \(0,\)"),
        ({"y_train": np.zeros((40, 1, 1), int)}, r"shape \[N\] or \[N, 1\]"),
        ({"y_train": np.array([{}] * Y)}, "`y_train` .* must hold numbers. Received: objects"),
        ({"y_train": np.array(["cat"] * Y)}, "`y_train` .* must hold numbers. Received: <U3"),
        ({"x_train": None}, "must hold both `x_train` and `y_train`, or neither"),
        (dict.fromkeys(arrays()), "must hold arrays x_train .* Received: no arrays"),
    ],
)
def test_npz_refusals(changes, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        datasets.load(save(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_npz_absent_foreign_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"must name a file. Received: no such file"):
        datasets.load(f"npz:{tmp_path / 'absent.npz'}")
    (tmp_path / "foreign.npz").write_bytes(b"PK not a zip")
    with pytest.raises(InputError, match=r"must be a readable .npz file"):
        datasets.load(f"npz:{tmp_path / 'foreign.npz'}")
    with pytest.raises(InputError, match=r"must be a regular file. Received: a folder"):
        datasets.load(f"npz:{tmp_path}")


def test_npz_size_limit_is_checked_before_reading(tmp_path, monkeypatch):
    name = save(tmp_path)
    monkeypatch.setattr(npz, "MAX_BYTES", 1000)
    monkeypatch.setattr(npz, "_array", lambda *_: pytest.fail("an array was read"))
    with pytest.raises(InputError, match=r"must hold at most 1000 bytes uncompressed"):
        datasets.load(name)


def test_npz_header_that_declares_more_than_the_file_holds(tmp_path):
    path = tmp_path / "lie.npz"
    np.savez(path, **arrays())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    lie = members["x_train.npy"].replace(b"(40, 4, 5, 3), }      ", b"(40000000, 4, 5, 3), }")
    assert lie != members["x_train.npy"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {"x_train.npy": lie}).items():
            archive.writestr(name, data)
    with pytest.raises(InputError, match=r"`x_train` .* as long as its header says"):
        datasets.load(f"npz:{path}")


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1), position=st.floats(0, 1), bits=st.integers(1, 255), flip=st.booleans())
def test_damaged_npz_is_refused_or_read_never_crashes(tmp_path_factory, cut, position, bits, flip):
    path = tmp_path_factory.mktemp("damaged") / "set.npz"
    np.savez_compressed(path, **arrays())
    data = bytearray(path.read_bytes())
    if flip:
        data[int(position * (len(data) - 1))] ^= bits
    else:
        data = data[: int(cut * (len(data) - 1))]
    path.write_bytes(bytes(data))
    try:
        dataset = datasets.load(f"npz:{path}")
    except InputError:
        return
    assert flip, "a truncated file was read"
    # A flipped bit can rename an array, never change one: every member has a checksum.
    if "test" in dataset.splits:
        np.testing.assert_array_equal(dataset["test"].images, arrays()["x_test"])


def write_image(path, image):
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(image).numpy())


def make_folder(root, splits=("train", "test"), channels=3, count=10):
    for split in splits:
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                image = np.full((6, 5, channels), 100 * label + i, np.uint8)
                write_image(root / split / name / f"{i:02}.png", image)
    return f"folder:{root}"


def test_folder_with_splits(tmp_path):
    dataset = datasets.load(make_folder(tmp_path), validation_fraction=0.2)
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 16, "validation": 4, "test": 20}
    assert (dataset.class_names, dataset.image_shape) == (("cat", "dog"), (6, 5, 3))
    assert dataset.augment
    for split in dataset.splits.values():
        np.testing.assert_array_equal(split.images[:, 0, 0, 0] // 100, split.labels)


def test_folder_with_its_own_validation_is_not_carved(tmp_path):
    dataset = datasets.load(make_folder(tmp_path, ("train", "validation", "test")))
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 20,
        "validation": 20,
        "test": 20,
    }


def test_folder_of_classes_is_carved_and_says_so(tmp_path):
    make_folder(tmp_path, ("all",), channels=1)
    dataset = datasets.load(f"folder:{tmp_path / 'all'}", validation_fraction=0.25)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }
    assert (dataset.image_shape, dataset.augment) == ((6, 5, 1), False)
    assert "4 of 20 images, stratified by class, became test" in dataset.provenance
    pixels = [set(split.images[:, 0, 0, 0]) for split in dataset.splits.values()]
    assert len(set.union(*pixels)) == 20


def test_folder_mixes_grey_colour_and_sizes(tmp_path):
    name = make_folder(tmp_path)
    write_image(tmp_path / "test" / "cat" / "grey.png", np.full((6, 5, 1), 9, np.uint8))
    test = datasets.load(name, splits=("test",))["test"]
    assert test.images.shape == (21, 6, 5, 3)
    write_image(tmp_path / "test" / "cat" / "large.png", np.full((12, 10, 4), 9, np.uint8))
    with pytest.raises(InputError, match=r"`image_size` must be given .* whose images differ"):
        datasets.load(name)
    resized = datasets.load(name, image_size=(12, 10))
    assert resized["test"].images.shape == (22, 12, 10, 3)


def test_folder_refusals(tmp_path):
    with pytest.raises(InputError, match=r"must name a folder. Received: no such folder"):
        datasets.load(f"folder:{tmp_path / 'absent'}")
    (tmp_path / "one" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"one subfolder per class, at least 2. .* 1 \(cat\)"):
        datasets.load(f"folder:{tmp_path / 'one'}")
    (tmp_path / "one" / "dog").mkdir()
    with pytest.raises(InputError, match=r"must hold images of class 'cat' .* Received: none"):
        datasets.load(f"folder:{tmp_path / 'one'}")
    name = make_folder(tmp_path / "set")
    (tmp_path / "set" / "test" / "cow").mkdir()
    with pytest.raises(InputError, match=r"the same classes .*\(cat, dog\)\. Received: cow"):
        datasets.load(name)
    (tmp_path / "set" / "test" / "cow").rmdir()
    (tmp_path / "set" / "train" / "cat" / "03.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cat/03.png must be a readable image"):
        datasets.load(name)
    (tmp_path / "set" / "test" / "dog" / "05.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2 files that are not: \S+cat/03.png, \S+dog/05.png\."):
        datasets.load(name)


@pytest.mark.parametrize("suffix", [".webp", ".tiff", ".tif", ".ppm"])
def test_folder_reads_what_pillow_reads(tmp_path, suffix):
    image_module = pytest.importorskip("PIL.Image")
    name = make_folder(tmp_path)
    image = np.random.RandomState(0).randint(0, 256, (6, 5, 3)).astype(np.uint8)
    options = {"lossless": True} if suffix == ".webp" else {}
    image_module.fromarray(image).save(tmp_path / "test" / "cat" / f"zz{suffix}", **options)
    test = datasets.load(name, splits=("test",))["test"]
    assert len(test) == 21
    np.testing.assert_array_equal(test.images[10], image)
    (tmp_path / "test" / "cat" / f"zz{suffix}").write_bytes(b"no image")
    with pytest.raises(InputError, match=rf"zz{suffix} must be a readable image"):
        datasets.load(name)


def test_folder_says_what_decoding_left_out(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    name = make_folder(tmp_path)
    cat = tmp_path / "test" / "cat"
    assert "Images whose" not in datasets.load(name, splits=("test",)).provenance
    exif = image_module.Exif()
    exif[0x0112] = 6
    plain = image_module.fromarray(np.zeros((6, 5, 3), np.uint8))
    plain.transpose(image_module.Transpose.ROTATE_90).save(cat / "turned.jpg", exif=exif)
    plain.convert("RGBA").save(cat / "clear.png")
    frames = [image_module.fromarray(np.full((6, 5, 3), v, np.uint8)) for v in (0, 90, 200)]
    frames[0].save(cat / "moving.gif", save_all=True, append_images=frames[1:])
    provenance = datasets.load(name, splits=("test",)).provenance
    assert "Images whose EXIF orientation was applied: 1." in provenance
    assert "Images whose transparency was dropped: 1." in provenance
    assert "Files of which only the first frame was read: 1." in provenance


def test_folder_refuses_16_bit_tiff_by_name(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    name = make_folder(tmp_path)
    image_module.fromarray(np.zeros((6, 5), np.uint16)).save(tmp_path / "test" / "cat" / "d.tif")
    with pytest.raises(InputError, match=r"d.tif must have 8 bits per channel"):
        datasets.load(name)


def test_folder_says_what_was_skipped_and_the_order_of_numbered_classes(tmp_path):
    plain = make_folder(tmp_path / "plain")
    assert "Skipped" not in datasets.load(plain).provenance
    for file in ("a.txt", "b.TXT", "c.mp4", ".hidden"):
        (tmp_path / "plain" / "test" / "cat" / file).write_bytes(b"")
    assert datasets.load(plain).provenance.count("Skipped as no images: 1 .mp4, 2 .txt.") == 1
    for label in range(12):
        write_image(tmp_path / "many" / "test" / str(label) / "1.png", np.zeros((2, 2, 1), "uint8"))
    many = datasets.load(f"folder:{tmp_path / 'many'}")
    assert many.class_names[:4] == ("0", "1", "10", "11")
    assert "class folder 10 has label 2" in many.provenance
    for name in ("9", "10"):
        write_image(tmp_path / "two" / "test" / name / "1.png", np.zeros((2, 2, 1), "uint8"))
    two = datasets.load(f"folder:{tmp_path / 'two'}")
    assert "class folder 10 has label 0" in two.provenance
    for label in (10, 11):
        (tmp_path / "many" / "test" / str(label) / "1.png").unlink()
        (tmp_path / "many" / "test" / str(label)).rmdir()
    assert "has label" not in datasets.load(f"folder:{tmp_path / 'many'}").provenance


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # damaged escapes
@settings(max_examples=100, deadline=None)
@given(
    position=st.integers(0, 127), byte=st.sampled_from(list(b"(){}[]',:0919 \n\\\"#\xff\x00|fO"))
)
def test_damaged_npy_header_is_refused_or_read_never_crashes(tmp_path_factory, position, byte):
    # Stored with a right checksum, so that only the header's own checks stand in the way.
    path = tmp_path_factory.mktemp("header") / "set.npz"
    np.savez(path, **arrays())
    with zipfile.ZipFile(path) as archive:
        members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    members["x_test.npy"][position] = byte
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, bytes(data))
    try:
        assert len(datasets.load(f"npz:{path}")["test"]) == 8
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("train", "val"), ("Training", "Validation"), ("train", "Test")]
)
def test_splits_under_other_names_are_neither_classes_nor_ignored(names, tmp_path):
    for name in names:
        make_folder(tmp_path / name)
    with pytest.raises(InputError, match="must call its splits train, validation, test. Received"):
        datasets.load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("names", "moved"),
    [
        ([f"class_{k}" for k in range(12)], "class folder class_10 has label 2"),
        (["0", "1", "2", "10", "cat"], "class folder 10 has label 2"),
        (["a 2", "a 10"], "class folder a 10 has label 0"),
        ([f"{k:02d}" for k in range(12)], None),
        (["cat", "dog"], None),
    ],
)
def test_folder_says_where_numbers_in_names_are_in_the_order_of_text(names, moved, tmp_path):
    for name in names:
        write_image(tmp_path / "test" / name / "1.png", np.zeros((2, 2, 1), "uint8"))
    provenance = datasets.load(f"folder:{tmp_path}", splits=("test",)).provenance
    assert ("has label" in provenance) == (moved is not None)
    assert moved is None or moved in provenance


def test_folder_says_what_lies_about(tmp_path):
    name = make_folder(tmp_path)
    image = np.zeros((6, 5, 3), np.uint8)
    write_image(tmp_path / "loose.png", image)
    (tmp_path / "test" / "cat" / "._x.png").write_bytes(b"\0")
    test = datasets.load(name, splits=("test",))
    assert len(test["test"]) == 20
    assert "Hidden image files that were skipped: 1." in test.provenance
    assert "Images outside of the class folders that were skipped: 1." in test.provenance


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "tiff"])
def test_the_orientation_of_every_kind_of_file_is_applied(suffix, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    name = make_folder(tmp_path)
    exif = image_module.Exif()
    exif[0x0112] = 6
    standing = np.zeros((6, 5, 3), np.uint8)
    standing[:3] = 255
    stored = image_module.fromarray(standing).transpose(image_module.Transpose.ROTATE_90)
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    stored.save(tmp_path / "test" / "cat" / f"zz.{suffix}", exif=exif, **options)
    test = datasets.load(name, splits=("test",))["test"]
    read = test.read([10])[0].astype(int)
    assert np.abs(read - standing).max() < 40
