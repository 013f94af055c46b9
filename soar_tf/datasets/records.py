"""Records of TensorFlow Datasets by number: TFRecord shards and array_record files.

An array_record file has an index of its own. TFRecord has none: a shard is gone through once, and
where its records begin is kept in the cache folder, with the labels, under the shards' names and
sizes. TensorFlow's checksums of TFRecord are not checked here; PNG and JPEG notice most damage.
"""

import contextlib
import functools
import hashlib
import io
import os
import pathlib
import struct
import sys
import threading
import time

import numpy as np

from soar_tf import files
from soar_tf.datasets.images import CHUNK, Images
from soar_tf.datasets.listing import MAX_CACHE_BYTES, cache_folder
from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import open_zip, read_array

_PAUSE, _OPEN_READERS = 10.0, 64
_LENGTH, _CHECKSUM = 8, 4  # bytes before and around a TFRecord's data


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
                self.features.deserialize_example(tf.constant(self.records.read(index)))
            except (tf.errors.OpError, OSError, ValueError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
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

    def load(self, index):
        import tensorflow as tf

        return tf.ensure_shape(self.reading.fitted(self.whole(index)), self.shape[1:])

    def whole(self, index):
        import tensorflow as tf

        record = tf.numpy_function(self.records.read, [index], tf.string, stateful=False)
        record.set_shape([])
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
            part = tf.constant([self.records.read(row) for row in rows])
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


class TFRecords:
    """The records of TFRecord shards, one after the other, by number.

    Args:
        paths: The shards' paths, in order.
        starts: int64 `[N]`: where each record's data begins in its shard.
        lengths: int64 `[N]`: the data's length in bytes.
        shards: int64 `[N]`: the number of each record's shard.
    """

    def __init__(self, paths, starts, lengths, shards):
        self.paths = [pathlib.Path(path) for path in paths]
        self.starts, self.lengths, self.shards = starts, lengths, shards

    @classmethod
    def scanned(cls, paths):
        """Goes through the shards from record to record, reading only the lengths.

        Raises:
            InputError: If a shard ends within a record.
        """
        starts, lengths, shards = [], [], []
        for number, path in enumerate(paths):
            with files.open_regular(path) as shard:
                size, place = shard.seek(0, os.SEEK_END), 0
                while place < size:
                    shard.seek(place)
                    head = shard.read(_LENGTH + _CHECKSUM)
                    length = struct.unpack("<Q", head[:_LENGTH])[0] if len(head) >= 8 else size
                    begin = place + _LENGTH + _CHECKSUM
                    place = begin + length + _CHECKSUM
                    if place > size:
                        raise InputError(f"{path} must hold whole records. Received: a cut file.")
                    starts.append(begin)
                    lengths.append(length)
                    shards.append(number)
        return cls(paths, *(np.array(column, np.int64) for column in (starts, lengths, shards)))

    def __len__(self):
        return len(self.starts)

    def read(self, index):
        """The bytes of a record."""
        length = int(self.lengths[index])
        # Opened anew each time: a set of a thousand shards would use up the process's files.
        with open(self.place(index), "rb", buffering=0) as shard:
            content = os.pread(shard.fileno(), length, int(self.starts[index]))
        if len(content) != length:
            raise ValueError("the file is shorter than when it was indexed")
        return content

    def place(self, index):
        """The file of a record."""
        return self.paths[int(self.shards[index])]


class ArrayRecords:
    """The records of array_record files, one after the other, by number.

    Args:
        paths: The files' paths, in order.

    Raises:
        InputError: If the package array_record is missing or a file cannot be read.
    """

    def __init__(self, paths):
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise InputError(
                "Data sets in array_record files need the package array-record. Received: it is "
                "not installed (pip install array-record)."
            ) from error
        self.paths = [pathlib.Path(path) for path in paths]
        self._local, self._module = threading.local(), array_record_module
        self.counts = [self._open(path).num_records() for path in self.paths]
        self._ends = np.cumsum(self.counts)

    def _open(self, path):
        files.open_regular(path).close()  # a pipe would be waited for
        # Without reading ahead: the next record is somewhere else.
        return self._module.ArrayRecordReader(str(path), options="readahead_buffer_size:0")

    def _reader(self, path):
        """A reader has a place in its file, so each thread has its own; the last ones stay open."""
        if not hasattr(self._local, "open"):
            self._local.open = functools.lru_cache(_OPEN_READERS)(self._open)
        return self._local.open(path)

    def __len__(self):
        return int(sum(self.counts))

    def read(self, index):
        """The bytes of a record."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[shard]) - self.counts[shard]
        return self._reader(self.paths[shard]).read([int(index) - first])[0]

    def place(self, index):
        """The file of a record."""
        return self.paths[int(np.searchsorted(self._ends, index, side="right"))]


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
