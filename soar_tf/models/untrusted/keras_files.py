"""`.keras` files: the zip, and networks that are far larger than their weights.

Keras's safe mode refuses code, links out of the weights file and bombs inside it; what it does not
refuse is a configuration of a few bytes that asks for terabytes of weights.
"""

import contextlib
import re
import threading
import zipfile

import h5py

from soar_tf.errors import InputError
from soar_tf.models.untrusted.archives import check_zip

MAX_BYTES = 16 * 2**30
MAX_CONFIG_BYTES = 64 * 2**20
# Small variables that Keras makes but does not store, such as the states of seed generators.
SLACK = 2**20
_lock = threading.RLock()


@contextlib.contextmanager
def checked(path, name):
    """Checks a `.keras` file, and bounds the weights that are made while it is being loaded.

    Args:
        path: The file.
        name: What it is called in errors.

    Raises:
        InputError: If the archive is a bomb, or the network larger than the weights in the file.
        OSError, zipfile.BadZipFile, ...: If it is no such file.
    """
    names = check_zip(
        path, name, max_bytes=MAX_BYTES, setting="soar_tf.models.untrusted.keras_files.MAX_BYTES"
    )
    with zipfile.ZipFile(path) as archive:
        for member in ("config.json", "metadata.json"):
            if member in names and archive.getinfo(member).file_size > MAX_CONFIG_BYTES:
                raise InputError(f"{name}: {member} must have at most {MAX_CONFIG_BYTES} bytes.")
        stored = sum(_elements(archive, n) for n in names if n.endswith(".h5"))
    with _bounded_weights(stored + SLACK, name):
        yield


def load(path, name):
    """The model of a `.keras` file, read in Keras's safe mode after the checks.

    Args:
        path: The file.
        name: What it is called in errors.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        InputError: If it is refused, or cannot be read.
    """
    import keras

    try:
        with checked(path, name):
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as error:  # Keras, h5py and zipfile raise anything on a foreign file
        sentence = re.split(r"(?<=\.)\s|\n", str(error).strip())[0][:300] or "no reason given"
        raise InputError(
            f"{name} cannot be read as a Keras model: {type(error).__name__}: {sentence}"
        ) from None


def _elements(archive, member):
    """Number of elements that a weights file declares."""
    total = 0

    def count(_, item):
        nonlocal total
        if isinstance(item, h5py.Dataset):
            total += int(item.size or 0)

    with archive.open(member) as stream, h5py.File(stream, "r") as file:
        file.visititems(count)
    return total


@contextlib.contextmanager
def _bounded_weights(limit, name):
    """Makes `Layer.add_weight`, by which every Keras layer gets its weights, count in this thread.

    A public function is wrapped, since Keras has no dry run that would tell the sizes.
    """
    import keras

    thread, made, original = threading.get_ident(), 0, keras.layers.Layer.add_weight

    def add_weight(self, shape=None, *args, **kwargs):
        nonlocal made
        if threading.get_ident() == thread:
            made += _size(shape)
            if made > limit:
                raise InputError(
                    f"{name} must build no more weights than it stores. Received: a network of "
                    f"more than {made} weights, and {limit - SLACK} stored ones."
                )
        return original(self, shape, *args, **kwargs)

    with _lock:
        keras.layers.Layer.add_weight = add_weight
        try:
            yield
        finally:
            keras.layers.Layer.add_weight = original


def _size(shape):
    size = 1
    for side in (shape,) if isinstance(shape, int) else shape or ():
        size *= int(side or 1)
    return size
