"""Records of TensorFlow Datasets by number: TFRecord shards and array_record files.

An array_record file has an index of its own. TFRecord has none: a shard is gone through once, and
where its records begin is kept in the cache folder, with the labels, under the shards' names and
sizes. TensorFlow's checksums of TFRecord are not checked here; PNG and JPEG notice most damage.
"""

import contextlib
import functools
import hashlib
import io
import pathlib
import sys
import time

import numpy as np

from soar_tf import files
from soar_tf.datasets.images import CHUNK, Images
from soar_tf.datasets.listing import MAX_CACHE_BYTES, cache_folder
from soar_tf.datasets.record_files import ArrayRecords, TFRecords
from soar_tf.errors import InputError, plain
from soar_tf.models.untrusted.archives import open_zip, read_array

_PAUSE = 10.0


class RecordImages(Images):
    """Images in the records of a prepared data set, decoded when they are read.

    Args:
        records: A `TFRecords` or `ArrayRecords`.
        features: The set's `tfds.features.FeaturesDict`.
        shape: `(H, W, C)`.
        reading: The `soar_tf.datasets.reading.Reading`.
        name: The set's name and version, for errors and `identity`.
    """

    in_graph = True

    def __init__(self, records, features, shape, reading, name):
        super().__init__((len(records), *shape))
        self.records, self.features, self.reading, self.name = records, features, reading, name

    def read(self, indices):
        import tensorflow as tf

        indices = np.asarray(indices, np.int64)
        try:
            with tf.device("CPU:0"):
                return self._graph(tf.constant(indices)).numpy()
        except tf.errors.OpError:
            self.check(indices)
            raise

    def check(self, indices):
        """Raises an error with the place of the first of the records that cannot be read.

        Raises:
            InputError: If there is one.
        """
        import tensorflow as tf

        for index in np.asarray(indices):
            try:
                self.features.deserialize_example(tf.constant(self.records.read([index])[0]))
            except (tf.errors.OpError, OSError, ValueError) as error:
                reason = plain(error).splitlines()[0][:200]
                raise InputError(
                    f"Record {index} of {self.name} ({self.records.place(index)}) must be "
                    f"readable. Received: {reason}"
                ) from error

    @functools.cached_property
    def _graph(self):
        import tensorflow as tf

        return tf.function(
            self.batch, input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False
        )

    def fetched(self, indices):
        import tensorflow as tf

        def read(indices):
            return np.array(self.records.read(indices), object)

        records = tf.numpy_function(read, [indices], tf.string, stateful=False)
        return (tf.ensure_shape(records, [None]),)

    def load(self, *fetched):
        import tensorflow as tf

        return tf.ensure_shape(self.reading.fitted(self.whole(*fetched)), self.shape[1:])

    def whole(self, *fetched):
        (record,) = fetched
        return prepared(self.features.deserialize_example(record)["image"], self.shape[3])

    def labels(self):
        """The labels of all records, int64 `[N]`: every record is read once."""
        import tensorflow as tf
        import tensorflow_datasets as tfds

        skip = {"image": tfds.decode.SkipDecoding()}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def parsed(records):
            def label(record):
                return self.features.deserialize_example(record, decoders=skip)["label"]

            return tf.map_fn(label, records, fn_output_signature=tf.int64)

        labels, said = np.empty(len(self), np.int64), time.monotonic()
        for start in range(0, len(self), CHUNK):
            rows = range(start, min(start + CHUNK, len(self)))
            part = tf.constant(self.records.read(rows))
            labels[start : start + len(rows)] = parsed(part).numpy()
            if time.monotonic() - said >= _PAUSE:
                said = time.monotonic()
                text = f"Reading labels of {self.name}: {start} of {len(self)}, once."
                print(text, file=sys.stderr)
        return labels

    def identity(self):
        digest = hashlib.sha256(repr((self.name, self.shape, self.reading)).encode())
        shards = [(path.name, path.stat().st_size) for path in self.records.paths]
        digest.update(repr(shards).encode())
        return digest.hexdigest()


def prepared(image, channels):
    """A decoded image `[h, w, c]`, uint8, with grey spread over three channels where wanted."""
    import tensorflow as tf

    if channels == 3 and image.shape[2] != 3:
        height, width, _ = tf.unstack(tf.shape(image))
        image = tf.broadcast_to(image[..., :3], [height, width, 3])
    return tf.ensure_shape(image, [None, None, channels])


def opened(paths, is_array_record, features, shape, reading, name):
    """The images and labels of record files, by an index from the cache where there is one.

    Returns:
        `(RecordImages, labels)`.

    Raises:
        InputError: If the files cannot be read.
    """
    paths = [pathlib.Path(path) for path in paths]
    sizes = np.array([path.stat().st_size for path in paths], np.int64)
    cache = cache_folder() / f"records-{_key(paths)}.npz"
    index = _cached(cache, sizes)
    if is_array_record:
        records = ArrayRecords(paths)
    elif index:
        records = TFRecords(paths, index["starts"], index["lengths"], index["shards"])
    else:
        records = TFRecords.scanned(paths)
    images = RecordImages(records, features, shape, reading, name)
    if index and len(index["labels"]) == len(records):
        return images, index["labels"]
    labels = images.labels()
    places = () if is_array_record else ("starts", "lengths", "shards")
    table = {name: getattr(records, name) for name in places}
    _write_cache(cache, {"sizes": sizes, "labels": labels, **table})
    return images, labels


def _key(paths):
    text = "\0".join(str(path.resolve()) for path in paths)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _cached(path, sizes):
    """The arrays of an index file; `{}` if it is missing, unusable or of files of other sizes."""
    with contextlib.suppress(Exception):  # whatever is wrong with a cache, it can be made anew
        with open_zip(path, str(path), max_bytes=MAX_CACHE_BYTES, setting="") as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            index = {name: read_array(archive, name, str(path)) for name in names}
        if np.array_equal(index["sizes"], sizes) and "labels" in index:
            return index
    return {}


def _write_cache(path, arrays):
    with contextlib.suppress(OSError):  # a cache that cannot be written costs only time
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        with files.replacing(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
