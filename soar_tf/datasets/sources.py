"""Which data sets there are, and `load`, the one way to get one."""

import dataclasses

from soar_tf import registry
from soar_tf.datasets.dataset import SPLITS, finish
from soar_tf.datasets.images import MEMORY_BYTES
from soar_tf.datasets.reading import Reading
from soar_tf.datasets.source import Request
from soar_tf.errors import InputError, unknown
from soar_tf.validation import LARGEST_INTEGER, check_integer, check_number, check_seed

NAMES = tuple(name for name in registry.DATASETS if ":" not in name)
"""The sets with a name of their own; the schemes tfds:NAME, npz:FILE, folder:DIR come on top."""


def describe():
    """Returns one line per data set or scheme: `{name: image shape, classes, licence}`.

    Plugins (entry point group `soar_tf.datasets`) are included.

    Example:

    >>> from soar_tf import datasets
    >>> datasets.describe()["digits"]
    '8x8x1, 10 classes, 1,797 handwritten digits; ships with soar-tf; CC BY 4.0'
    """
    sources, _ = registry.DATASETS.available()
    return {name: source.summary for name, source in sources.items()}


def load(
    name,
    *,
    data_dir=None,
    splits=SPLITS,
    validation_fraction=0.1,
    validation_images=None,
    image_size=None,
    seed=0,
    resize_crop=None,
    channels=None,
    orientation=True,
    memory_limit=None,
):
    """Loads a data set: its labels, and its images where they are few.

    Images of a folder are decoded when they are needed. Those of npz files that are not compressed,
    of `.npy` files and of TensorFlow Datasets are held in memory if a split's take at most
    `memory_limit` bytes, and else read when they are needed. What is read does not depend on it.

    A source without a validation split gets one carved out of train, stratified by class; never out
    of test. Wanted splits that the source cannot give are left out.

    Args:
        name: One of `NAMES`, or `"tfds:NAME"`, `"npz:FILE"`, `"folder:DIR"`; or a plugin's name.
        data_dir: Folder where TensorFlow Datasets keeps its sets; `None` for its default.
        splits: The splits to load, out of train, validation and test.
        validation_fraction: Share of train to carve, in [0, 1). Unused where the source has a
            validation split.
        validation_images: Number of images to carve instead, less than train has: the same share of
            every class, rounded so that the sum is right. 0 gives no validation split, even if the
            source has one. `None`: by `validation_fraction`.
        image_size: `(height, width)` in pixels to resize to, or `None` to keep the size.
        seed: Fixes which images are carved. Not the training seed: runs that are compared share it.
        resize_crop: Side in pixels of square crops: training sees random resized crops, mirrored
            half of the time, evaluation the central one; or `None`.
        channels: 1 turns colour into grey, 3 grey into colour; `None` keeps what there is.
        orientation: Whether a folder's images are turned as their EXIF orientation says, as most
            viewers and `PIL.ImageOps.exif_transpose` do.
        memory_limit: Bytes; `None` for `soar_tf.datasets.images.MEMORY_BYTES`, 512 MiB.

    Returns:
        A `Dataset`.

    Raises:
        InputError: If an argument or the data does not fit.

    Example:

    >>> from soar_tf import datasets
    >>> sorted(datasets.load("digits", splits=("test",)).splits)
    ['test']
    """
    wanted = (splits,) if isinstance(splits, str) else tuple(splits)
    for split in wanted:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
    fraction = check_number(validation_fraction, "validation_fraction", minimum=0)
    if fraction >= 1:
        raise InputError(f"`validation_fraction` must be < 1. Received: {validation_fraction!r}.")
    count = validation_images
    if count is not None:
        count = check_integer(count, "validation_images", minimum=0)
        if count == 0 and wanted == ("validation",):
            raise InputError(
                f"Data set {name!r} has no split 'validation' here: no images were set apart for "
                "it (`validation_images` is 0)."
            )
        wanted = tuple(split for split in wanted if count or split != "validation")
    seed = check_seed(seed)
    reading = Reading(image_size, resize_crop, channels, orientation)
    limit = MEMORY_BYTES if memory_limit is None else memory_limit
    limit = check_integer(limit, "memory_limit", minimum=0, maximum=LARGEST_INTEGER)
    source, place = _find(name)
    dataset, available = source.open(Request(str(name), place, wanted, data_dir, reading, limit))
    dataset = finish(dataset, available, wanted, fraction, seed, count)
    return dataset if source.reads_as_wanted else _read_as(dataset, reading)


def _find(name):
    """The source that a name or its beginning stands for, and what follows the colon."""
    scheme, _, place = str(name).partition(":")
    if place:
        for key in registry.DATASETS:
            if key.startswith(f"{scheme}:"):
                return registry.DATASETS[key], place
    return registry.DATASETS.find(name), place


def _read_as(dataset, reading):
    """The data set in the size and channels that are wanted."""
    splits = {name: reading.of(split) for name, split in dataset.splits.items()}
    shape = next(iter(splits.values())).image_shape
    provenance = dataset.provenance
    if shape[:2] != dataset.image_shape[:2]:
        how = "Central squares, resized" if reading.resize_crop else "Resized"
        provenance += f" {how} from {dataset.image_shape[:2]} to {shape[:2]}."
    if shape[2] != dataset.image_shape[2]:
        provenance += f" Channels: {dataset.image_shape[2]} became {shape[2]}."
    return dataclasses.replace(dataset, splits=splits, image_shape=shape, provenance=provenance)
