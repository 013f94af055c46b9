"""The contract of every source: the same batches as from memory, whatever reads them."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from soar_tf import datasets
from soar_tf.datasets import images as random_access
from soar_tf.datasets import listing, pipeline, reading, records
from soar_tf.errors import InputError

COUNT = 24


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAR_TF_CACHE", str(tmp_path / "cache"))


def pictures(count=COUNT, height=12, width=10, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, height, width, 3)).astype(np.uint8)


def labels(count=COUNT):
    return np.arange(count) % 3


def folder(root, split="train", suffixes=(".png", ".jpg", ".webp", ".bmp"), count=COUNT):
    for number, (image, label) in enumerate(zip(pictures(count), labels(count), strict=True)):
        place = root / split / "abc"[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03}{suffixes[number % len(suffixes)]}")
    return f"folder:{root}"


class SoarPictures(tfds.core.GeneratorBasedBuilder):
    """A TensorFlow Datasets set of `COUNT` images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(12, 10, 3))
        label = tfds.features.ClassLabel(num_classes=3)
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, _):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(COUNT):
            yield number, {"image": pictures()[number], "label": int(labels()[number])}


def prepare(root, file_format):
    config = tfds.download.DownloadConfig(num_shards=3)
    SoarPictures(data_dir=root, file_format=file_format).download_and_prepare(
        download_config=config
    )


class Examples:
    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return {"image": pictures()[index], "label": int(labels()[index])}


def opened(kind, root, limit, **settings):
    """The training split of a source; `limit` bytes of it may be in memory."""
    if kind == "object":
        return datasets.from_sequence(Examples())
    data_dir = root / "tfds"
    if kind == "folder":
        name = folder(root / "folder")
    elif kind == "npz":
        np.savez(root / "set.npz", x_train=pictures(), y_train=labels())
        name = f"npz:{root / 'set.npz'}"
    elif kind == "npy":
        (root / "arrays").mkdir(exist_ok=True)
        np.save(root / "arrays" / "x_train.npy", pictures().astype(np.float32) / 255)
        np.save(root / "arrays" / "y_train.npy", labels())
        name = f"npz:{root / 'arrays'}"
    else:
        if not data_dir.exists():
            prepare(data_dir, kind)
        name = "tfds:soar_pictures"
    loaded = datasets.load(
        name, data_dir=data_dir, validation_images=0, memory_limit=limit, **settings
    )
    return loaded["train"]


KINDS = ("folder", "npz", "npy", "object", "tfrecord", "array_record")


def batches(split, **options):
    train, _ = datasets.training_pipeline(split, 7, seed=5, epochs=2, augment=True, **options)
    test = datasets.evaluation_pipeline(split, 7, **options)
    return [(x.numpy(), y.numpy()) for pipeline in (train, test) for x, y in pipeline]


def same(first, second):
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_batches_of_memory(kind, tmp_path):
    split = opened(kind, tmp_path, 0)
    assert not isinstance(split.source, random_access.InMemory)
    memory = datasets.Split(split.images, split.labels, split.shuffled)
    expected = batches(memory)
    for threads in (1, 3):
        same(batches(split, memory_limit=0, threads=threads), expected)
    rows = np.array([5, 0, 5, 23])
    np.testing.assert_array_equal(split.read(rows), memory.images[rows])
    np.testing.assert_array_equal(split.select(rows).select([1, 2]).images, memory.images[[0, 5]])
    np.testing.assert_array_equal(split.pixels(0)[3:9], memory.float_images()[3:9])
    np.testing.assert_array_equal(np.asarray(split.pixels(0)), memory.float_images())
    np.testing.assert_array_equal(split.take(9).images, memory.take(9).images)
    small = opened(kind, tmp_path, 10**9)
    np.testing.assert_array_equal(small.images, memory.images)
    np.testing.assert_array_equal(small.labels, memory.labels)


@pytest.mark.parametrize("kind", ["npz", "npy", "object", "tfrecord", "array_record"])
def test_what_is_read_is_what_was_written(kind, tmp_path):
    split = opened(kind, tmp_path, 0)
    found = {
        image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)
    }
    written = pictures() if kind != "npy" else pictures().astype(np.float32) / 255
    assert found == dict(zip((x.tobytes() for x in written), labels(), strict=True))


@pytest.mark.parametrize("settings", [{"image_size": (8, 9)}, {"channels": 1}, {"resize_crop": 6}])
@pytest.mark.parametrize("kind", ["folder", "npz", "tfrecord"])
def test_sizes_channels_and_crops_are_the_same_streamed(kind, settings, tmp_path):
    streamed = opened(kind, tmp_path, 0, **settings)
    small = opened(kind, tmp_path, 10**9, **settings)
    expected = batches(small, threads=2)
    same(batches(streamed, memory_limit=0, threads=3), expected)
    shape = (*settings.get("image_size", (settings.get("resize_crop", 0),) * 2), 3)
    shape = (12, 10, 1) if "channels" in settings else shape
    assert expected[0][0].shape[1:] == shape == streamed.image_shape
    np.testing.assert_array_equal(streamed.images, small.images)


def test_parts_of_batches_put_together_are_the_batches(tmp_path):
    split = opened("folder", tmp_path, 0)
    whole, _ = datasets.training_pipeline(split, 6, seed=1, epochs=2)
    halves = [
        datasets.training_pipeline(split, 6, seed=1, epochs=2, part=(k, 2), memory_limit=0)[0]
        for k in (0, 1)
    ]
    for (x, y), (x0, y0), (x1, y1) in zip(whole, *halves, strict=True):
        np.testing.assert_array_equal(x, np.concatenate([x0, x1]))
        np.testing.assert_array_equal(y, np.concatenate([y0, y1]))
    for size in (5, 24, 23):  # 24 is 4 more than 4 * 5, and 1 more than 23
        parts = [datasets.evaluation_pipeline(split, size, part=(k, 3)) for k in range(3)]
        pieces = [
            [y.numpy() for y in step]
            for step in zip(*[p.map(lambda x, y: y) for p in parts], strict=True)
        ]
        assert all(len(piece) for step in pieces for piece in step)
        np.testing.assert_array_equal(
            np.concatenate([y for step in pieces for y in step]), split.labels
        )
    with pytest.raises(InputError, match="must be divisible by 4. Received: 6"):
        datasets.training_pipeline(split, 6, seed=1, epochs=1, part=(0, 4))


def test_files_are_decoded_only_when_they_are_needed(tmp_path, monkeypatch):
    split = opened("folder", tmp_path, 0)
    few = split.take(4)
    gone = set(split.source.paths) - {split.source.paths[row] for row in few.source.rows}
    assert len(gone) == COUNT - 4
    for path in gone:
        pathlib.Path(split.source.root, path).unlink()
    assert few.images.shape == (4, 12, 10, 3)
    assert sum(len(y) for _, y in datasets.training_pipeline(few, 2, seed=0, epochs=1)[0]) == 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(pictures(1, 3, 2)[0]).resize((20, 30))
    for name in "ab":
        (tmp_path / "test" / name).mkdir(parents=True)
        for suffix in ("tiff", "webp"):
            file = tmp_path / "test" / name / f"1.{suffix}"
            smooth.save(file, exif=exif, lossless=True)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    test = datasets.load(f"folder:{tmp_path}", splits="test")["test"]
    for image in test.images:
        np.testing.assert_array_equal(image, expected)
    for tiff in tmp_path.rglob("*.tiff"):  # Pillow turns them by itself
        tiff.unlink()
    stored = datasets.load(f"folder:{tmp_path}", splits="test", orientation=False)["test"]
    np.testing.assert_array_equal(stored.images[0], np.asarray(Image.open(file)))


KINDS_OF_PIXELS = {
    "palette.png": ("P", {}),
    "bits.png": ("1", {}),
    "alpha.png": ("RGBA", {}),
    "grey_alpha.png": ("LA", {}),
    "grey.jpg": ("L", {}),
    "cmyk.jpg": ("CMYK", {}),
    "palette.bmp": ("P", {}),
    "palette.gif": ("P", {}),
    "palette.tiff": ("P", {}),
    "grey.webp": ("L", {"lossless": True}),
    "named_wrongly.png": ("RGB", {"format": "WEBP"}),
}


@pytest.mark.parametrize("name", KINDS_OF_PIXELS)
def test_kinds_of_pixels_are_read_as_pillow_reads_them(name, tmp_path):
    mode, options = KINDS_OF_PIXELS[name]
    smooth = Image.fromarray(pictures(1, 3, 3)[0]).resize((16, 12)).convert(mode)
    for folder_name in "ab":
        (tmp_path / "test" / folder_name).mkdir(parents=True)
        smooth.save(tmp_path / "test" / folder_name / name, **options)
    stored = Image.open(tmp_path / "test" / "a" / name)
    data = datasets.load(f"folder:{tmp_path}", splits="test", channels=3)
    # The alpha channel is dropped, not blended in.
    expected = np.asarray(stored.convert("RGBA" if "A" in mode else "RGB"))[..., :3]
    tolerance = 2 if name == "grey.jpg" else 0  # two decoders
    for image in data["test"].images.astype(int):
        np.testing.assert_allclose(image, expected, atol=tolerance)
    assert ("transparency was dropped: 2" in data.provenance) == ("A" in mode)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_16_bits_is_read_by_its_upper_8(channels, tmp_path):
    deep = np.random.RandomState(0).randint(0, 2**16, (6, 5, channels)).astype(np.uint16)
    for name in "ab":
        (tmp_path / "test" / name).mkdir(parents=True)
        content = tf.io.encode_png(deep).numpy()
        (tmp_path / "test" / name / "deep.png").write_bytes(content)
    data = datasets.load(f"folder:{tmp_path}", splits="test")
    np.testing.assert_array_equal(data["test"].images[1], deep >> 8)
    assert "16 bits per channel read by the upper 8: 2." in data.provenance
    assert any("16 bits" in line for line in data.reading)


def test_grey_is_that_of_pillow():
    image = pictures(1, 40, 40)[0]
    expected = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(reading.to_channels(image, 1)[..., 0], expected)
    grey = reading.to_channels(expected[..., None], 3)
    np.testing.assert_array_equal(reading.to_channels(grey, 1)[..., 0], expected)


def test_random_crops_are_parts_of_the_image_drawn_per_example():
    ramp = np.stack(np.meshgrid(np.arange(96), np.arange(96), indexing="ij"), -1)
    ramp = ramp.astype(np.float32)
    shares, flips, ratios = [], 0, []

    @tf.function
    def crop_of(index):
        return reading.random_crop(tf.constant(ramp), pipeline.random_keys(1, 0, index[None]), 16)

    for index in range(300):
        crop = crop_of(tf.constant(index)).numpy()
        rows, columns = np.ptp(crop[..., 0]) * 16 / 15, np.ptp(crop[..., 1]) * 16 / 15
        shares.append(rows * columns / 96**2)
        ratios.append(columns / rows)
        flips += crop[0, 0, 1] > crop[0, -1, 1]
    # Shares s uniform in [.08, 1], log ratios u uniform in [-.288, .288], those with
    # s <= exp(-|u|): a mean of .478, with a standard deviation of .24 / sqrt(300).
    assert 0.05 < min(shares) < 0.12
    assert abs(np.mean(shares) - 0.478) < 5 * 0.24 / np.sqrt(300)
    assert 0.7 < min(ratios) < max(ratios) < 1.42
    assert abs(flips - 150) < 5 * np.sqrt(75)


def test_crops_differ_between_epochs_and_evaluation_sees_the_centre(tmp_path):
    split = opened("npz", tmp_path, 10**9, resize_crop=4)
    train, steps = datasets.training_pipeline(split, COUNT, seed=0, epochs=2, augment=True)
    first, second = ({int(v) for v in x.numpy().sum((1, 2, 3))} for x, _ in train)
    assert steps == 1
    assert first != second
    square = pictures()[:, 1:10, 0:9]  # 8.75 of 10 pixels, rounded to 9, in the middle of 12x10
    expected = reading.resize(square, (4, 4)).numpy()
    np.testing.assert_array_equal(split.images, expected)
    central, _ = datasets.training_pipeline(split, COUNT, seed=0, epochs=1, augment=False)
    (x, _), *_ = central
    assert {row.tobytes() for row in x.numpy()} == {
        row.tobytes() for row in expected.astype(np.float32) / np.float32(255)
    }


def test_a_file_that_turns_corrupt_is_named(tmp_path):
    split = opened("folder", tmp_path, 0)
    file = pathlib.Path(split.source.root, split.source.paths[4])
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b"x" * len(content)):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{file.name} must be a readable image"):
            split.read(np.arange(8))
        assert split.read([0, 1]).shape == (2, 12, 10, 3)
    file.unlink()
    with pytest.raises(InputError, match=f"{file.name} must be a readable image"):
        split.read([4])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".bmp", ".tiff", ".ppm"])
def test_files_that_are_cut_off_are_all_named_before_training(tmp_path, suffix):
    name = folder(tmp_path, suffixes=(suffix,))
    cut = sorted((tmp_path / "train" / "a").iterdir())[:2]
    for file in cut:
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match="2 files that are not") as caught:
        datasets.load(name)
    assert all(str(file) in str(caught.value) for file in cut)


def test_headers_are_read_once(tmp_path, monkeypatch):
    name = folder(tmp_path / "set")
    monkeypatch.setattr(listing, "CACHED", 10)
    fingerprint = datasets.load(name).fingerprint()
    seen = []
    header = listing._header
    monkeypatch.setattr(listing, "_header", lambda file: seen.append(file.name) or header(file))
    assert datasets.load(name).fingerprint() == fingerprint
    assert seen == []
    file = sorted((tmp_path / "set" / "train" / "a").iterdir())[0]
    file.write_bytes(file.read_bytes() + b"\0")
    assert datasets.load(name).fingerprint() != fingerprint
    assert seen == [file.name]
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(b"no cache")
    datasets.load(name)
    assert len(seen) == 1 + COUNT


def test_fingerprint_covers_names_sizes_first_bytes_labels_and_settings(tmp_path):
    def load(**settings):
        return datasets.load(f"folder:{tmp_path}", **settings).fingerprint()

    folder(tmp_path, suffixes=(".png",))
    before = load()
    assert before.startswith("files:")
    assert before == load()
    variants = [load(image_size=(8, 8)), load(channels=1), load(validation_images=5)]
    file = sorted((tmp_path / "train" / "a").iterdir())[0]
    content = file.read_bytes()
    file.rename(file.with_name("zzz.png"))
    variants.append(load())
    file.with_name("zzz.png").rename(file)
    assert load() == before
    changed = pictures()[0].copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(file)
    variants.append(load())
    file.write_bytes(content)
    assert len({before, *variants}) == 6


def test_pixel_fingerprints_of_older_runs_are_recognised(tmp_path):
    loaded = datasets.load(folder(tmp_path, suffixes=(".png",)), validation_images=4)
    splits = {n: datasets.Split(s.images, s.labels) for n, s in loaded.splits.items()}
    memory = datasets.Dataset("x", 3, (12, 10, 3), splits)
    old = memory.fingerprint()
    assert not old.startswith("files:")
    assert loaded.has_fingerprint(old)
    assert loaded.has_fingerprint(loaded.fingerprint())
    assert not loaded.has_fingerprint(old[::-1])
    assert not memory.has_fingerprint(loaded.fingerprint())


def test_index_of_records_is_built_once_and_checked_against_sizes(tmp_path, monkeypatch):
    first = opened("tfrecord", tmp_path, 0)
    scans = []
    scanned = records.TFRecords.scanned.__func__
    spy = classmethod(lambda cls, paths: scans.append(len(paths)) or scanned(cls, paths))
    monkeypatch.setattr(records.TFRecords, "scanned", spy)
    again = opened("tfrecord", tmp_path, 0)
    assert scans == []
    np.testing.assert_array_equal(again.images, first.images)
    assert len(first.source.records.paths) == 3
    shard = first.source.records.paths[1]
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(InputError, match="must hold whole records"):
        opened("tfrecord", tmp_path, 0)
    assert scans == [3]
    with pytest.raises(InputError, match=f"{shard.name}.* must be readable"):
        again.read(np.arange(COUNT))


def test_mapped_float_pixels_are_checked_when_they_are_read(tmp_path):
    x = pictures().astype(np.float32) / 255
    x[7] = 2
    np.savez(tmp_path / "set.npz", x_test=x, y_test=labels())
    test = datasets.load(f"npz:{tmp_path / 'set.npz'}", splits="test", memory_limit=0)["test"]
    np.testing.assert_array_equal(test.read([6, 8]), x[[6, 8]])
    with pytest.raises(InputError, match=r"`x_test` of .* must have float pixels in \[0, 1\]"):
        test.read([6, 7])


@pytest.mark.parametrize(
    "source, message",
    [
        (object(), "must have `__len__` and `__getitem__`"),
        ([], "must hold at least one example"),
        ([1, 2], r"must be \(image, label\) or a dictionary"),
        ([(np.zeros((2, 2, 3)), 0)], "must be uint8 .* Received: float64 at 0"),
        ([(np.zeros((2, 2, 3), "u1"), "cat")], "Labels of `source` must be integers"),
    ],
)
def test_objects_that_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        datasets.from_sequence(source)


def test_objects_of_another_shape_are_refused_when_they_are_read():
    split = datasets.from_sequence([(np.zeros((2, s, 3), "u1"), 0) for s in (2, 2, 3)])
    with pytest.raises(InputError, match=r"shape \(2, 2, 3\). Received: .* \(2, 3, 3\) at 2"):
        split.read([0, 2])
