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

    @functools.cached_property
    def _needs(self):
        """Which steps some file needs: a graph without the others is a third faster."""
        headers, sizes = self.headers, shown_sizes(self.headers, self.reading)
        return {
            "pillow": bool((headers["flags"] & decoding.PILLOW).any()),
            "channels": bool((headers["channels"] != self.shape[3]).any()),
            "turns": bool(self.reading.orientation and (headers["orientation"] > 1).any()),
            "size": bool(self.reading.resize_crop or (sizes != self.shape[1:3]).any()),
        }

    def fetched(self, indices):
        import tensorflow as tf

        return tuple(tf.gather(column, indices) for column in self._tensors)

    def load(self, *fetched):
        import tensorflow as tf

        image = self.whole(*fetched)
        image = self.reading.fitted(image) if self._needs["size"] else image
        return tf.ensure_shape(image, self.shape[1:])

    def whole(self, *fetched):
        import tensorflow as tf

        path, pillow, turns, size = fetched
        content = tf.io.read_file(path)
        # `tf.debugging.Assert` would add a conditional for every image.
        same = tf.raw_ops.Assert(
            condition=tf.strings.length(content) == tf.cast(size, tf.int32),
            data=["Another size than when the folder was listed:", path],
        )
        with tf.control_dependencies([same]):
            content = tf.identity(content)
        if self._needs["pillow"]:
            image = tf.cond(
                pillow,
                lambda: tf.numpy_function(_by_pillow, [path], tf.uint8, stateful=False),
                lambda: tf.io.decode_image(content, expand_animations=False),
            )
        else:
            image = tf.io.decode_image(content, expand_animations=False)
        image.set_shape([None, None, None])
        image = self._in_channels(image)
        return turned(image, turns) if self._needs["turns"] else image

    def _in_channels(self, image):
        import tensorflow as tf

        channels = self.shape[3]
        if not self._needs["channels"]:
            return tf.ensure_shape(image[..., :channels], [None, None, channels])  # without alpha
        image = decoding.without_alpha(image)
        if channels == 3 or self.reading.channels:
            height, width, _ = tf.unstack(tf.shape(image))
            image = tf.broadcast_to(image, [height, width, 3])
        image = tf.ensure_shape(image, [None, None, 3 if self.reading.channels else channels])
        return to_channels(image, channels)

    def identity(self):
        digest = hashlib.sha256(repr((self.shape, self.reading)).encode())
        digest.update(os.fsencode("\0".join(self.paths)))
        for column in ("size", "head"):
            digest.update(np.ascontiguousarray(self.headers[column]).tobytes())
        return digest.hexdigest()


def shown_sizes(headers, reading):
    """int `[N, 2]`: height and width of the images as they are shown."""
    sizes = np.stack([headers["height"], headers["width"]], axis=1)
    lying = headers["orientation"] >= 5 if reading.orientation else np.zeros(len(sizes), bool)
    sizes[lying] = sizes[lying, ::-1]
    return sizes


def _by_pillow(path):
    return decoding.decoded(pathlib.Path(os.fsdecode(path)), with_pillow=True)
