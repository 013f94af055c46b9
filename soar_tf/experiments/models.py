"""Reading models back: run directories, `.keras` files and SavedModels."""

import dataclasses
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from soar_tf.errors import InputError
from soar_tf.experiments import run_directory


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model to evaluate.

    Attributes:
        name: What it was loaded from.
        logits_fn: Callable `[B, H, W, C] -> [B, num_classes]`, float32, in inference mode.
        input_shape: `(H, W, C)`; entries are `None` where any size is taken.
        num_classes: Number of classes.
        network: The `keras.Model`, or `None` for a SavedModel.
        config: A run's configuration as a dictionary, `{}` otherwise.
    """

    name: str
    logits_fn: Callable
    input_shape: tuple
    num_classes: int
    network: object = None
    config: dict = dataclasses.field(default_factory=dict)


def load(path):
    """Loads a model of any of the three kinds.

    Only load SavedModels from people you trust: they are programs. `.keras` files are read in
    Keras's safe mode, which refuses code.

    Args:
        path: A run directory, a `.keras` file or a SavedModel folder.

    Returns:
        A `LoadedModel`.

    Raises:
        InputError: If it is none of these, or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"`model` {path} does not exist.")
    if path.is_dir() and run_directory.is_run(path):
        return _load_run(path)
    if (path / "saved_model.pb").is_file():
        return _load_saved_model(path)
    if path.is_file() and path.suffix == ".keras":
        return _from_network(load_network(path), path)
    raise InputError(
        f"`model` must be a run directory, a .keras file or a SavedModel folder. Received: {path}."
    )


def load_network(path):
    """Loads a `.keras` file as a network that gives logits.

    A model saved by this package gives its wrapped network; a softmax head is taken off (and said
    so on stderr).

    Raises:
        InputError: If the file cannot be read, or has no single output of logits.
    """
    import keras

    from soar_tf import networks

    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras, h5py and zipfile raise anything on a foreign file
        reason = str(error).strip().splitlines()
        raise InputError(
            f"`model` {path} cannot be read as a Keras model: {type(error).__name__}: "
            f"{reason[0][:200] if reason else 'no reason given'}"
        ) from None
    network = getattr(network, "network", network)
    if (head := networks.softmax_head(network)) is not None:
        print(f"{path}: taking off the softmax of layer {head.name!r}.", file=sys.stderr)
        network = networks.to_logits(network)
    return network


def check_fits(model, image_shape, num_classes, name):
    """Refuses a data set whose images or classes do not fit a model.

    Args:
        model: A `keras.Model` or a `LoadedModel`.
        image_shape: The data set's `(H, W, C)`.
        num_classes: The data set's number of classes.
        name: What the model is called in the error.

    Raises:
        InputError: If the shapes differ.
    """
    if isinstance(model, LoadedModel):
        wanted, classes = model.input_shape, model.num_classes
    else:
        wanted, classes = tuple(model.input_shape[1:]), model.output_shape[-1]
    fits = len(wanted) == len(image_shape) and all(
        w is None or w == i for w, i in zip(wanted, image_shape, strict=False)
    )
    if not fits:
        raise InputError(
            f"`model` {name} takes images of shape {wanted}. Received a data set of shape "
            f"{tuple(image_shape)}."
        )
    if classes < num_classes:
        raise InputError(
            f"`model` {name} has {classes} classes. Received a data set of {num_classes}."
        )


def network_path(path):
    """The `.keras` file of a run directory, or `path` itself."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"`init_from` {path} does not exist.")
    if path.is_dir():
        if not run_directory.is_run(path):
            raise InputError(
                f"`init_from` must be a run directory or a .keras file. Received: {path}."
            )
        return _finished(path)
    return path


def _finished(path):
    if not (path / run_directory.NETWORK).is_file():
        raise InputError(f"The run in {path} is not finished; repeat its command to finish it.")
    return path / run_directory.NETWORK


def _load_run(path):
    config = tomllib.loads((path / run_directory.CONFIG).read_text(encoding="utf-8"))
    loaded = _from_network(load_network(_finished(path)), path)
    return dataclasses.replace(loaded, config=config)


def _from_network(network, path):
    import tensorflow as tf

    shape = getattr(network, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] is None or shape[1] < 2:
        raise InputError(
            f"`model` {path} must give logits [B, C] with at least 2 classes. "
            f"Received outputs of shape {shape}."
        )

    def logits_fn(x):
        return tf.cast(network(x, training=False), tf.float32)

    return LoadedModel(str(path), logits_fn, tuple(network.input_shape[1:]), shape[1], network)


def _load_saved_model(path):
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(path)
        signature = loaded.signatures["serving_default"]
    except Exception as error:
        raise InputError(
            f"`model` {path} cannot be read as a SavedModel: {type(error).__name__}."
        ) from None
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"`model` {path} must have one input and one output. "
            f"Received {len(inputs)} and {len(outputs)}."
        )
    (key, spec), (output, output_spec) = *inputs.items(), *outputs.items()
    if output_spec.shape.rank != 2 or (output_spec.shape[1] or 0) < 2:
        raise InputError(
            f"`model` {path} must give logits [B, C]. Received shape {output_spec.shape}."
        )

    def logits_fn(x):
        return tf.cast(signature(**{key: tf.cast(x, spec.dtype)})[output], tf.float32)

    # The signature's variables live as long as the loaded object.
    logits_fn.saved_model = loaded
    return LoadedModel(str(path), logits_fn, tuple(spec.shape[1:]), int(output_spec.shape[1]))
