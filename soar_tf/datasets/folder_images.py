"""The images of a folder's files, decoded when they are read."""

import functools
import hashlib
import os
import pathlib
import threading

import numpy as np

from soar_tf.datasets import decoding
from soar_tf.datasets.images import Images, host_tensor
from soar_tf.datasets.reading import to_channels, turned


class FolderImages(Images):
    """The images of files, decoded when they are read.

    Args:
        root: The folder.
        paths: The files' paths in it.
        headers: What is known of them, see `listing.HEADER`.
        shape: `(H, W, C)` of the images.
        reading: The `Reading`.
    """

    in_graph = True

    def __init__(self, root, paths, headers, shape, reading):
        super().__init__((len(paths), *shape))
        self.root, self.paths, self.headers, self.reading = root, paths, headers, reading
        self._lock = threading.Lock()

    def read(self, indices):
        import tensorflow as tf

        with self._lock:  # one trace
            graph = self._graph
        try:
            with tf.device("CPU:0"):
                return graph(tf.constant(np.asarray(indices, np.int64))).numpy()
        except tf.errors.OpError:
            self.check(indices)
            raise

    def check(self, indices):
        """Raises an error with the name of the first of the files that cannot be read.

        Files that changed since the folder was listed are looked at first.

        Raises:
            InputError: If there is one.
        """
        for index in sorted(np.asarray(indices), key=self._unchanged):
            header, file = self.headers[index], pathlib.Path(self.root, self.paths[index])
            decoding.decoded(file, with_pillow=bool(header["flags"] & decoding.PILLOW))
            if file.stat().st_size != header["size"]:
                raise decoding.unreadable(file, "another size than when the folder was listed.")

    def _unchanged(self, index):
        try:
            status = pathlib.Path(self.root, self.paths[index]).stat()
        except OSError:
            return False
        known = self.headers[index]
        return (status.st_size, status.st_mtime_ns) == (known["size"], known["changed"])

    @functools.cached_property
    def _graph(self):
        import tensorflow as tf

        return tf.function(
            self.batch, input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False
        )

    @functools.cached_property
    def _tensors(self):
        names = [os.fsencode(pathlib.Path(self.root, path)) for path in self.paths]
        pillow = (self.headers["flags"] & decoding.PILLOW) > 0
        turns = self.headers["orientation"].astype(np.int32)
        if not self.reading.orientation:
            turns[:] = 1
        columns = (np.array(names, object), pillow, turns, self.headers["size"])
        return tuple(host_tensor(column) for column in columns)

    def load(self, index):
        import tensorflow as tf

        image = self.reading.fitted(self.whole(index))
        return tf.ensure_shape(image, self.shape[1:])

    def whole(self, index):
        import tensorflow as tf

        path, pillow, turns, size = (tf.gather(column, index) for column in self._tensors)
        content = tf.io.read_file(path)
        same = tf.debugging.Assert(
            tf.strings.length(content) == tf.cast(size, tf.int32),
            ["Another size than when the folder was listed:", path],
        )
        with tf.control_dependencies([same]):
            image = tf.cond(
                pillow,
                lambda: tf.numpy_function(_by_pillow, [path], tf.uint8, stateful=False),
                lambda: tf.io.decode_image(content, expand_animations=False),
            )
        image.set_shape([None, None, None])
        image = decoding.without_alpha(image)
        if self.shape[3] == 3 or self.reading.channels:
            height, width, _ = tf.unstack(tf.shape(image))
            image = tf.broadcast_to(image, [height, width, 3])
        image = tf.ensure_shape(image, [None, None, 3 if self.reading.channels else self.shape[3]])
        return turned(to_channels(image, self.shape[3]), turns)

    def identity(self):
        digest = hashlib.sha256(repr((self.shape, self.reading)).encode())
        digest.update(os.fsencode("\0".join(self.paths)))
        for column in ("size", "head"):
            digest.update(np.ascontiguousarray(self.headers[column]).tobytes())
        return digest.hexdigest()


def _by_pillow(path):
    return decoding.decoded(pathlib.Path(os.fsdecode(path)), with_pillow=True)
