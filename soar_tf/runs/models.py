"""Reading models back: run directories, `.keras` files, SavedModels and the zoo's networks."""

import dataclasses
from pathlib import Path

from soar_tf import methods
from soar_tf.datasets import defaults
from soar_tf.errors import InputError
from soar_tf.models import loading, zoo
from soar_tf.models.loading import LoadedModel, load_network
from soar_tf.runs import run_directory
from soar_tf.runs.config_file import read_toml
from soar_tf.runs.model_data import (
    check_fits,
    dataset_for,
    examples_for,
    say_what_was_read,
    validation_images,
)
from soar_tf.threat_model import ThreatModel
from soar_tf.validation import check_number

__all__ = [
    "LoadedModel",
    "check_fits",
    "dataset_for",
    "examples_for",
    "load",
    "load_for_export",
    "load_network",
    "network_path",
    "say_what_was_read",
    "threat_model",
    "trained_for",
    "validation_images",
]


def load(path, *, trust=False, pixel_range=None):
    """Loads a model of any kind.

    SavedModels are programs: one that could do more than compute is refused, unless it is trusted.
    `.keras` files are read in Keras's safe mode, which refuses code.

    Args:
        path: A run directory, a `.keras`, `.tflite` or `.onnx` file, a SavedModel folder or
            `zoo:NAME`.
        trust: Whether a SavedModel may hold any operation.
        pixel_range: The pixel value that stands for white where a file's network takes others than
            [0, 1]; runs and zoo networks all take [0, 1].

    Returns:
        A `LoadedModel`.

    Raises:
        InputError: If it is none of these, or cannot be read.
    """
    if pixel_range is not None:
        pixel_range = check_number(pixel_range, "pixel_range", minimum=0.0, exclusive=True)
    if run_directory.is_run(path):
        return _load_run(Path(path))
    if (loaded := loading.load(path, trust=trust, pixel_range=pixel_range)) is not None:
        return loaded
    raise InputError(
        "`model` must be a run directory, a .keras, .tflite or .onnx file, a SavedModel folder or "
        "zoo:NAME. "
        f"Received: {path}."
    )


def threat_model(loaded, dataset, norm=None, epsilon=None):
    """The threat model to judge models in: what is given, else theirs, else the data set's.

    Args:
        loaded: The `LoadedModel`s that are judged.
        dataset: Data set's name.
        norm: `"linf"`, `"l2"`, `"l1"`, or `None`: that of the models' training.
        epsilon: Radius, or `None`: that of the models' training, if the norm is.

    Returns:
        A `soar_tf.threat_model.ThreatModel`.

    Raises:
        InputError: If the models were trained for different ones and nothing else was given, or if
            no radius is known.
    """
    trained = {trained_for(model.config): None for model in loaded}
    trained = [threat for threat in trained if threat is not None]
    if norm is None and epsilon is None and len(trained) > 1:
        raise InputError(
            "`norm` and `epsilon` are needed: the models were trained for "
            f"{' and '.join(map(str, trained))}."
        )
    if norm is None:
        norm = trained[0].norm if trained else "linf"
    if epsilon is not None:
        return ThreatModel(norm, epsilon)
    same = [threat for threat in trained if threat.norm == norm]
    return same[0] if same else defaults.threat_model(dataset, norm)


def trained_for(config):
    """The threat model of a run's configuration.

    Args:
        config: The configuration as a dictionary, `{}` for models that have none.

    Returns:
        A `soar_tf.threat_model.ThreatModel`; `None` if the method has none, such as standard
        training, or is not installed here.
    """
    if "method" not in config:
        return None
    try:
        return methods.get(config["method"], **config.get("method_args", {})).threat_model
    except InputError:
        return None


def load_for_export(path):
    """Loads a model whose Keras network is needed.

    Args:
        path: A run directory, a `.keras` file or `zoo:NAME`.

    Returns:
        A `LoadedModel` with a `network`.

    Raises:
        InputError: If it is none of these.
    """
    network_path(path, "model")
    loaded = load(path)
    if loaded.network is None:
        raise InputError(
            f"`model` must be a run directory, a .keras file or zoo:NAME. Received: {path}."
        )
    return loaded


def network_path(path, argument="init_from"):
    """The `.keras` file of a run directory or of `zoo:NAME`, or `path` itself.

    Raises:
        InputError: If there is no such file or run; it calls the path `argument`.
    """
    path = zoo.located(path)
    if not path.exists():
        raise InputError(f"`{argument}` {path} does not exist.")
    if zoo.is_entry(path):
        return path / zoo.NETWORK
    if path.is_dir():
        if not run_directory.is_run(path):
            raise InputError(
                f"`{argument}` must be a run directory, a .keras file or zoo:NAME. "
                f"Received: {path}."
            )
        return _finished(path)
    return path


def _finished(path):
    if not (path / run_directory.NETWORK).is_file():
        raise InputError(f"The run in {path} is not finished; repeat its command to finish it.")
    return path / run_directory.NETWORK


def _load_run(path):
    config = read_toml(path / run_directory.CONFIG)
    loaded = loading.from_network(load_network(_finished(path)), path)
    return dataclasses.replace(loaded, config=config)
