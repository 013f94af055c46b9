"""Export as a plain SavedModel, which loads without soar_tf, and without Keras."""

import contextlib
import functools
import io
import os
import shutil
from pathlib import Path

from soar_tf import files
from soar_tf.errors import InputError


def export(network, folder):
    """Writes a network as a SavedModel: images `[B, H, W, C]` in, logits `[B, C]` out.

    Input gradients work through it, so it can be the source of a transfer attack.

    Args:
        network: A built `keras.Model`, or a `RobustModel`, whose network is exported.
        folder: Where to write; it must not exist or be empty.

    Raises:
        InputError: If `folder` is in use or cannot be written.

    Example:

    >>> import keras, soar_tf, tempfile
    >>> network = soar_tf.networks.mlp()
    >>> folder = tempfile.mkdtemp() + "/saved_model"
    >>> from soar_tf.models import saved_model
    >>> saved_model.export(network, folder)
    >>> import tensorflow as tf
    >>> loaded = tf.saved_model.load(folder)
    >>> loaded.serve(tf.zeros((1, 8, 8, 1))).shape
    TensorShape([1, 10])
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"`folder` must not exist yet, or be empty. Received: {folder}.")
    network = getattr(network, "network", network)
    temporary = files.unfinished(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Keras prints the signatures; stdout belongs to results.
        with contextlib.redirect_stdout(io.StringIO()):
            write(network, temporary)
        if folder.exists():
            folder.rmdir()
        files.sync_tree(temporary)
        os.replace(temporary, folder)
        files.sync(folder.parent)
    except OSError as error:
        raise InputError(f"`folder` {folder} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write(network, folder):
    """Writes the SavedModel that Keras writes, with each weight once; not atomically.

    `Model.export` tracks the layers' variables beside those that the function uses, which are the
    same ones, but not to TensorFlow: it stores both. A subclassed model, whose inputs only Keras
    knows, is left to it.

    Args:
        network: A built `keras.Model`.
        folder: Where to write; it must not exist or be empty.

    Example:

    >>> import soar_tf, tempfile
    >>> from soar_tf.models import saved_model
    >>> saved_model.write(soar_tf.networks.mlp(), tempfile.mkdtemp())
    """
    folder = str(folder)
    if not (inputs := getattr(network, "inputs", None)):
        network.export(folder, verbose=False)
        return
    from keras.export import ExportArchive
    from tensorflow import TensorSpec

    archive = ExportArchive()
    specs = [TensorSpec((None, *x.shape[1:]), x.dtype, x.name) for x in inputs]
    # Layers such as RandomFlip work as in training unless they are told otherwise.
    archive.add_endpoint("serve", functools.partial(network, training=False), specs)
    archive.write_out(folder, verbose=False)
