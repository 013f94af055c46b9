"""The files that `benchmarks.input` reads: JPEG of smooth noise, and the same pixels as records."""

import os
import pathlib

import numpy as np

CLASSES, DISTINCT = 10, 200


def prepare(root, count, side):
    """Writes the JPEG files of a side, and their pixels as an npz file and as records.

    Args:
        root: A folder; it gets `folder/train/CLASS/...`, `set.npz`, `tfrecord/`, `array_record/`.
        count: Number of images; beyond 200 they are hard links to earlier ones.
        side: Height and width in pixels.
    """
    import tensorflow as tf

    random = np.random.RandomState(side)
    for number in range(count):
        place = root / "folder" / "train" / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        if number < DISTINCT:
            small = random.uniform(0, 255, (1, 12, 12, 3))
            image = tf.cast(tf.image.resize(small, (side, side), "bicubic"), tf.uint8)[0]
            content = tf.io.encode_jpeg(image, quality=90).numpy()
            (place / f"{number:07}.jpg").write_bytes(content)
        else:
            os.link(place / f"{number % DISTINCT:07}.jpg", place / f"{number:07}.jpg")
    files = sorted((root / "folder").rglob("*.jpg"))
    images = np.stack([tf.io.decode_jpeg(file.read_bytes()).numpy() for file in files])
    labels = np.array([int(file.parent.name[-1]) for file in files])
    np.savez(root / "set.npz", x_train=images, y_train=labels)
    for file_format in ("tfrecord", "array_record"):
        _builder(files, labels, side, root / file_format, file_format).download_and_prepare()


def _builder(files, labels, side, data_dir, file_format):
    """A TensorFlow Datasets builder of the JPEG files."""
    import tensorflow_datasets as tfds

    class BenchmarkPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        __module__ = "benchmark_pictures"  # for one in a package, TFDS looks for files beside it
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(side, side, 3), encoding_format="jpeg")
            label = tfds.features.ClassLabel(num_classes=CLASSES)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, (file, label) in enumerate(zip(files, labels, strict=True)):
                yield number, {"image": str(file), "label": int(label)}

    return BenchmarkPictures(data_dir=data_dir, file_format=file_format)


def linked(files, folder, count):
    """A folder of `count` hard links to JPEG files, in `folder/train`.

    Args:
        files: The folder with the files.
        folder: The new folder.
        count: Number of links.

    Returns:
        The bytes of all links on a disk that has no hard links.
    """
    originals = sorted(pathlib.Path(files).rglob("*.jpg"))
    sizes = [file.stat().st_size for file in originals]
    for number in range(count):
        place = folder / "train" / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], place / f"{number:07}.jpg")
    return sum(sizes[number % len(sizes)] for number in range(count))
