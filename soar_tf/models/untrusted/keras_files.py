"""`.keras` files: the zip, the configuration, the weights, and whether they belong together.

`load` is the only place where the package lets Keras read a model. Keras's safe mode is on as well;
but it is a list of what is forbidden, so it knows only the tricks of its own version.
"""

import contextlib
import re
import shutil
import tempfile
import threading

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.models.untrusted import hdf5, keras_configs
from soar_tf.models.untrusted.archives import open_zip

MAX_BYTES = 16 * 2**30
MAX_CONFIG_BYTES = 64 * 2**20
_IN_MEMORY = 2**28
_CONFIG, _WEIGHTS, _OTHER_WEIGHTS = "config.json", "model.weights.h5", "model.weights.npz"
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
        InputError: If the archive or its weights are a bomb, if the configuration names anything
            that could do more than compute, or if the network is larger than the weights in the
            file.
        OSError, zipfile.BadZipFile, ...: If it is no such file.
    """
    setting = "soar_tf.models.untrusted.keras_files.MAX_BYTES"
    with open_zip(path, name, max_bytes=MAX_BYTES, setting=setting) as archive:
        members = archive.namelist()
        for member in (_CONFIG, "metadata.json"):
            if member in members and archive.getinfo(member).file_size > MAX_CONFIG_BYTES:
                raise InputError(f"{name}: {member} must have at most {MAX_CONFIG_BYTES} bytes.")
        config = files.parse_json(archive.read(_CONFIG), f"{name}: {_CONFIG}", MAX_CONFIG_BYTES)
        keras_configs.check(config, name)
        if _OTHER_WEIGHTS in members:
            raise InputError(f"{name} must hold its weights in {_WEIGHTS}, not {_OTHER_WEIGHTS}.")
        stored = 0
        for member in members:
            if member.endswith(".h5"):
                with _unpacked(archive, member) as weights:
                    stored += hdf5.count_elements(weights, f"{name}: {member}")
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
        # Keras counts the objects that it could not load, and then gives the reason for the first.
        text = re.sub(r"\AA total of .*?:\n+", "", str(error).strip(), flags=re.DOTALL)
        sentence = re.split(r"(?<=\.)\s|\n", text)[0][:300] or "no reason given"
        raise InputError(
            f"{name} cannot be read as a Keras model: {type(error).__name__}: {sentence}"
        ) from None


@contextlib.contextmanager
def _unpacked(archive, member):
    """A member as a file of its own: going back in a zip file means reading it from the start."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        with archive.open(member) as stream:
            shutil.copyfileobj(stream, file, 2**20)
        file.seek(0)
        yield file


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
