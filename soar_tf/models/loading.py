"""Reading model files back as logits functions: Keras's, TensorFlow's, shipped ones, the zoo's."""

import dataclasses
import os
import sys

from soar_tf.errors import InputError
from soar_tf.models import artefacts, zoo
from soar_tf.models.loaded_model import LoadedModel
from soar_tf.models.untrusted import keras_files, saved_models

__all__ = ["LoadedModel", "as_network", "from_network", "load", "load_network"]


def load(path, argument="model", *, trust=False, pixel_range=None):
    """Loads a `.keras` file, a SavedModel folder or a network of the zoo.

    SavedModels are programs: one that could do more than compute is refused, unless it is trusted.
    `.keras` files are read in Keras's safe mode, which refuses code.

    Args:
        path: A `.keras` file, a SavedModel folder, a `.tflite` or `.onnx` file, `zoo:NAME` or a zoo
            network's folder.
        argument: The argument's name, for the errors.
        trust: Whether a SavedModel may hold any operation, such as one that writes files.
        pixel_range: The pixel value that stands for white where a file's network takes others than
            [0, 1], such as 255; the zoo's networks all take [0, 1].

    Returns:
        A `LoadedModel`, or `None` if `path` is none of these.

    Raises:
        InputError: If it does not exist, cannot be read, or holds an operation that can do more
            than compute.

    Example:

    >>> import soar_tf, tempfile
    >>> from soar_tf.models import loading
    >>> folder = tempfile.mkdtemp() + "/saved_model"
    >>> exported = soar_tf.export(soar_tf.networks.mlp(), folder)
    >>> loading.load(folder).num_classes
    10
    """
    given, path = str(path), zoo.located(path)
    if not path.exists():
        raise InputError(f"`{argument}` {path} does not exist.")
    if zoo.is_entry(path):
        return _load_entry(path, given, argument)
    if (path / "saved_model.pb").is_file():
        if not trust:
            saved_models.check(path, argument)
        return _load_saved_model(path, argument, pixel_range)
    if path.is_file() and path.suffix == ".keras":
        network = load_network(path, argument, pixel_range=pixel_range)
        return from_network(network, path, argument)
    if path.suffix in artefacts.SUFFIXES:
        return artefacts.load(path, argument, pixel_range=pixel_range)
    return None


def load_network(path, argument="model", *, pixel_range=None):
    """Loads a `.keras` file as a network that gives logits.

    A model saved by this package gives its wrapped network; a softmax head is taken off (and said
    so on stderr).

    Args:
        path: The `.keras` file.
        argument: The argument's name, for the errors.
        pixel_range: See `load`.

    Returns:
        A `keras.Model`.

    Raises:
        InputError: If the file cannot be read, or has no single output of logits.

    Example:

    >>> import soar_tf, tempfile
    >>> path = tempfile.mkdtemp() + "/mlp.keras"
    >>> soar_tf.networks.mlp().save(path)
    >>> from soar_tf.models import loading
    >>> loading.load_network(path).name
    'mlp'
    """
    from soar_tf.models import networks

    network = keras_files.load(path, f"`{argument}` {path}")
    network = getattr(network, "network", network)
    if (head := networks.softmax_head(network)) is not None:
        print(f"{path}: taking off the softmax of layer {head.name!r}.", file=sys.stderr)
        network = networks.to_logits(network)
    if pixel_range is not None:
        network = networks.with_pixel_range(network, pixel_range)
    return network


def from_network(network, name, argument="model"):
    """A Keras network as a `LoadedModel`.

    Args:
        network: A `keras.Model` giving logits.
        name: What it was loaded from.
        argument: The argument's name, for the error.

    Raises:
        InputError: If its output is not logits `[B, C]`.

    Example:

    >>> import soar_tf
    >>> from soar_tf.models import loading
    >>> loading.from_network(soar_tf.networks.mlp(), "mine").input_shape
    (8, 8, 1)
    """
    import tensorflow as tf

    shape = getattr(network, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] is None or shape[1] < 2:
        raise InputError(
            f"`{argument}` {name} must give logits [B, C] with at least 2 classes. "
            f"Received outputs of shape {shape}."
        )

    def logits_fn(x):
        return tf.cast(network(x, training=False), tf.float32)

    return LoadedModel(str(name), logits_fn, tuple(network.input_shape[1:]), shape[1], network)


def as_network(network, argument="network", *, trust=False):
    """What Python code may give for a network: a path or `zoo:NAME` is loaded.

    Args:
        network: A path, see `load`; anything else comes back as it is.
        argument: The argument's name, for the errors.
        trust: Whether a SavedModel may hold any operation.

    Returns:
        A `keras.Model` or a logits function.

    Raises:
        InputError: If a path cannot be loaded.

    Example:

    >>> import soar_tf, tempfile
    >>> path = tempfile.mkdtemp() + "/mlp.keras"
    >>> soar_tf.networks.mlp().save(path)
    >>> from soar_tf.models import loading
    >>> loading.as_network(path).output_shape
    (None, 10)
    """
    if not isinstance(network, (str, os.PathLike)):
        if not callable(network) or isinstance(network, type):
            raise InputError(
                f"`{argument}` must be a keras.Model, a function [B, ...] -> [B, C], a model "
                f"file's path or zoo:NAME. Received: {network!r}."
            )
        return network
    loaded = load(network, argument, trust=trust)
    if loaded is None:
        raise InputError(
            f"`{argument}` must be a SavedModel folder, a .keras, .tflite or .onnx file, or "
            f"zoo:NAME. Received: {network}."
        )
    return loaded.network or loaded.logits_fn


def _load_entry(path, given, argument):
    """A zoo network; it knows its data set, as a run does."""
    config = zoo.read_card(path)["config"]
    loaded = from_network(load_network(path / zoo.NETWORK, argument), given, argument)
    return dataclasses.replace(loaded, config=config)


def _load_saved_model(path, argument, pixel_range):
    import tensorflow as tf

    from soar_tf.models import scales

    try:
        loaded = tf.saved_model.load(path)
        signature = loaded.signatures["serving_default"]
    except Exception as error:
        raise InputError(
            f"`{argument}` {path} cannot be read as a SavedModel: {type(error).__name__}."
        ) from None
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"`{argument}` {path} must have one input and one output. "
            f"Received {len(inputs)} and {len(outputs)}."
        )
    (key, spec), (output, output_spec) = *inputs.items(), *outputs.items()
    if output_spec.shape.rank != 2 or (output_spec.shape[1] or 0) < 2:
        raise InputError(
            f"`{argument}` {path} must give logits [B, C]. Received shape {output_spec.shape}."
        )

    if spec.shape.rank is not None and spec.shape[0] is not None:
        raise InputError(
            f"`{argument}` {path} must take batches of any size. Received a signature for exactly "
            f"{spec.shape[0]} images; export it with a batch size of None."
        )
    if not spec.dtype.is_floating and pixel_range is None:
        raise InputError(scales.integer_input(f"`{argument}` {path}", spec.dtype.name))

    def logits_fn(x):
        x = scales.to_range(x, pixel_range, spec.dtype)
        return tf.cast(signature(**{key: x})[output], tf.float32)

    # The signature's variables live as long as the loaded object.
    logits_fn.saved_model = loaded
    return LoadedModel(str(path), logits_fn, tuple(spec.shape[1:]), int(output_spec.shape[1]))
