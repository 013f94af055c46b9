"""Image-classification sets of TensorFlow Datasets, read without noise and without half-done work.

`tfds` alone tries ten times over three minutes to reach a dead mirror and leaves an
`incomplete.*` folder behind. Here the mirror is probed first, and the set is prepared in a
temporary folder that is renamed into place only when it is complete.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import sys
import tempfile

import numpy as np

from soar_tf import files
from soar_tf.datasets import records
from soar_tf.datasets.dataset import SPLITS, Dataset, needed
from soar_tf.datasets.images import MEMORY_BYTES
from soar_tf.datasets.reading import Reading
from soar_tf.datasets.split import Split
from soar_tf.errors import InputError, plain

MIRRORS = {
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
    "cifar100": "https://www.cs.toronto.edu/~kriz/",
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "svhn_cropped": "http://ufldl.stanford.edu/housenumbers/",
}
PROBE_SECONDS = 5
# No community namespace (`owner:name`), whose index TFDS would fetch from Google Cloud.
_NAME = re.compile(r"[\w/.+=,-]+(:[\d.*]+)?")
# Fingerprints (see `_pixels`) of the test images of a copy that was compared with what others
# published of the official set: the hashes of ten test images, and the training images' channel
# means and standard deviations.
ORIGINAL_PIXELS = {"cifar10": "eb97bdfceb97fec3832a6abdbbf9f16340a510375c77ce1b32c45de1e6d88318"}
NO_FLIP = ("mnist", "fashion_mnist", "svhn_cropped")  # mirrored digits are other signs


def load(name, wanted, data_dir, reading=None, limit=MEMORY_BYTES, display=None):
    """Reads the wanted splits of a set, downloading it if it is not there.

    A split whose images take more than `limit` bytes is read record by record when it is needed.

    Args:
        name: The set's name in TensorFlow Datasets, e.g. `"cifar10"`.
        wanted: Names of the splits.
        data_dir: Folder of prepared sets, or `None` for TFDS's own default.
        reading: The `Reading`; `None` for one without settings.
        limit: Bytes of a split's images in memory.
        display: What the set is called in errors and in `Dataset.name`; `name` by default.

    Returns:
        `(dataset, available)`: the `Dataset` and the names of all its splits.

    Raises:
        InputError: If the set is unknown, absent and not downloadable, or not of images.
    """
    display, reading = display or name, reading or Reading()
    root = tfds_folder(data_dir)
    with _quiet():
        builder = _builder(name, root, display)
        size = _check_features(builder, reading.size, display)
        if not builder.is_prepared():
            _prepare(name, root, display)
            builder = _builder(name, root, display)
        available = tuple(split for split in SPLITS if split in builder.info.splits)
        try:
            chosen = needed(wanted, available)
            splits = {s: _split(builder, s, size, reading, limit) for s in chosen}
        except InputError:
            raise
        except Exception as error:  # damaged records surface as any of a dozen types
            raise InputError(
                f"Data set {display!r} in {builder.data_path} could not be read: "
                f"{_short(error)}. Remove that folder and prepare it again."
            ) from error
    label = builder.info.features["label"]
    return Dataset(
        name=display,
        num_classes=label.num_classes,
        image_shape=size,
        splits=splits,
        class_names=tuple(label.names) if label.names else None,
        augment=size[2] == 3 and re.split("[/:]", name)[0] not in NO_FLIP,
        provenance=_provenance(builder, splits),
    ), available


def tfds_folder(data_dir=None):
    """Where TensorFlow Datasets keeps its sets: `data_dir`, else TFDS's own default.

    Args:
        data_dir: A folder, or `None`.

    Example:

    >>> from soar_tf import datasets
    >>> datasets.tfds_folder("data").name
    'data'
    """
    return pathlib.Path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or pathlib.Path("~", "tensorflow_datasets")
    ).expanduser()


@contextlib.contextmanager
def _quiet():
    """Silences TFDS's warnings and keeps what it prints off standard output."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.set_verbosity(before)


def _short(error):
    """The error's type and first line; TFDS goes on to list its whole catalogue."""
    return f"{type(error).__name__}: {plain(error).splitlines()[0][:200]}"


def _builder(name, root, display):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"Data set {display!r} needs the package tensorflow-datasets. "
            f"Received: {_short(error)}. Run: pip install tensorflow-datasets"
        ) from error
    if not _NAME.fullmatch(name):
        raise InputError(
            f"`tfds:NAME` must be a set of TFDS's own catalogue, as name, name/config or "
            f"name:version. Received: {name!r}."
        )
    try:
        return tfds.builder(name, data_dir=root, try_gcs=False)
    except Exception as error:
        raise InputError(
            f"`tfds:NAME` must name a data set of TensorFlow Datasets or one prepared in {root}. "
            f"Received: {name!r} ({_short(error)})."
        ) from error


def _check_features(builder, image_size, display):
    """Returns `(H, W, C)` of the images, or refuses a set that is not image classification."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = set(features or ())
    if (
        not {"image", "label"} <= keys
        or not isinstance(features["image"], tfds.features.Image)
        or not isinstance(features["label"], tfds.features.ClassLabel)
        or np.dtype(features["image"].np_dtype) != np.uint8
    ):
        raise InputError(
            f"Data set {display!r} must be image classification, with features `image` (uint8) "
            f"and `label`. Received: {', '.join(sorted(keys)) or 'no features'}."
        )
    shape = features["image"].shape
    size = tuple(image_size or shape[:2])
    if None in size:
        raise InputError(
            f"`image_size` must be (height, width) for data set {display!r}, whose images vary in "
            f"size. Received: None."
        )
    return (*size, shape[2] or 3)


def _probe(name, builder):
    """Raises unless the set's mirror (or home page, or TFDS's own) answers within seconds."""
    import requests

    known = MIRRORS.get(re.split("[/:]", name)[0])
    urls = [known] if known else [builder.info.homepage, "https://www.tensorflow.org/"]
    for url in urls:
        try:
            requests.head(url, timeout=PROBE_SECONDS)
            return
        except (requests.RequestException, ValueError):
            continue
    raise ConnectionError(f"no answer from {' or '.join(urls)}")


def _prepare(name, root, display):
    """Downloads the set next to its final place and renames it there when it is complete."""
    import tensorflow_datasets as tfds

    absent = not root.exists()
    try:
        _probe(name, tfds.builder(name, data_dir=root))
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".soar-tf-", dir=root) as temporary:
            builder = tfds.builder(name, data_dir=temporary)
            builder.download_and_prepare()
            target = root / pathlib.Path(builder.data_path).relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(builder.data_path, target)
    except Exception as error:  # whatever stops a download, the answer to the user is the same
        advice = (
            f"Run: pip install {error.name}"  # TFDS imports some of its requirements late
            if isinstance(error, ImportError) and error.name
            else "Connect to the network, or give `data_dir` (--data-dir), a folder where TFDS "
            "has prepared it"
        )
        raise InputError(
            f"Data set {display!r} is not in {root} and could not be downloaded "
            f"({_short(error)}). {advice}."
        ) from error
    finally:
        if absent and root.exists() and not any(root.iterdir()):
            root.rmdir()


def _split(builder, split, shape, reading, limit):
    """One split: in memory if its images take few bytes, else read record by record."""
    info = builder.info
    array_record = str(info.file_format.value) == "array_record"
    crops = reading.resize_crop
    small = info.splits[split].num_examples * int(np.prod(shape)) <= limit
    shuffled = not info.disable_shuffling
    if small and not array_record and not crops:
        return Split(*_read(builder, split, shape), shuffled)
    paths = info.splits[split].filepaths
    images, labels = records.opened(
        paths, array_record, info.features, shape, reading, f"{info.full_name} {split}"
    )
    if len(labels) != info.splits[split].num_examples:
        raise ValueError(
            f"{info.splits[split].num_examples} examples are declared, {len(labels)} were read"
        )
    found = Split(images, labels, shuffled)
    found.resize_crop = crops
    return found.in_memory(limit) if small and not crops else found


def _read(builder, split, shape):
    """Reads the images and labels of one split into preallocated arrays, in order."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from soar_tf.datasets.reading import resize

    # Nothing here is for AutoGraph, and converting it takes half a second.
    @tf.autograph.experimental.do_not_convert
    def resized(example):
        image = example["image"]
        if image.shape != shape:
            image = resize(image[None], shape[:2])[0]
        return tf.ensure_shape(records.prepared(image, shape[2]), shape), example["label"]

    # Shard after shard, as `records` has them: TFDS would take turns.
    config = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    stream = builder.as_dataset(split=split, shuffle_files=False, read_config=config)
    stream = stream.map(resized, tf.data.AUTOTUNE)
    count = builder.info.splits[split].num_examples
    images, labels = np.empty((count, *shape), np.uint8), np.empty(count, np.int64)
    start = 0
    for x, y in stream.batch(1000).prefetch(1).as_numpy_iterator():
        images[start : start + len(x)], labels[start : start + len(x)] = x, y
        start += len(x)
    if start != count:
        raise ValueError(f"{count} examples are declared, {start} were read")
    return images, labels


def _pixels(images):
    """Fingerprint of images `[N, ...]` in any order: copies of a set may be sorted differently."""
    hashes = sorted(hashlib.sha256(image.tobytes()).digest() for image in images)
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def _provenance(builder, splits):
    """The set's name and version, and whether its pixels are known to be the original ones.

    If they are not, the description stored beside the records, which names edits.
    """
    known = ORIGINAL_PIXELS.get(builder.name)
    if known and "test" in splits and _pixels(splits["test"].images) == known:
        return (
            f"TensorFlow Datasets {builder.info.full_name}, the original pixels: ten test images "
            "have the hashes published for the official ones, and the training images the "
            "published channel means and standard deviations."
        )
    path = pathlib.Path(builder.data_path, "dataset_info.json")
    try:
        description = (files.read_json(path) or {}).get("description") or ""
    except InputError:
        description = builder.info.description or ""
    return " ".join(f"TensorFlow Datasets {builder.info.full_name}. {description}".split())
