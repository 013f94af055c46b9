"""Reading models back: run directories, `.keras` files, SavedModels and the zoo's networks."""

import dataclasses
import sys
from pathlib import Path

from soar_tf import datasets, methods
from soar_tf.datasets import defaults
from soar_tf.errors import InputError
from soar_tf.models import loading, zoo
from soar_tf.models.loading import LoadedModel, load_network
from soar_tf.runs import run_directory
from soar_tf.runs.config_file import read_toml
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
        loaded = loading.from_network(model, name)
        wanted, classes = loaded.input_shape, loaded.num_classes
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


def say_what_was_read(dataset):
    """Prints on stderr what was read as what, for data sets of which that can surprise."""
    for line in dataset.reading:
        print(line, file=sys.stderr)


def examples_for(models, dataset, *, data_dir, image_size, split, limit, reading=None, say=False):
    """Loads the images to attack models with, after checking that they fit every model.

    Args:
        models: Mapping of names to `LoadedModel`s.
        dataset: Data set's name.
        data_dir: Folder of tensorflow-datasets; `None` takes a run directory's own.
        image_size: `[height, width]`, or `None`.
        split: The split.
        limit: Number of images, or `None` for all.
        reading: See `dataset_for`.
        say: Whether to say on stderr what was read.

    Returns:
        A `soar_tf.datasets.Split`.

    Raises:
        InputError: If the data cannot be loaded or does not fit.
    """
    data = dataset_for(
        models, dataset, data_dir=data_dir, image_size=image_size, split=split, reading=reading
    )
    if say:
        say_what_was_read(data)
    return data[split] if limit is None else data[split].take(limit)


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


def dataset_for(models, dataset, *, data_dir, image_size, split, reading=None):
    """Loads a data set with this one split.

    Args:
        models: See `examples_for`.
        dataset: See `examples_for`.
        data_dir: See `examples_for`.
        image_size: See `examples_for`.
        split: The split.
        reading: A dictionary of `resize_crop`, `channels` and `orientation`, see
            `soar_tf.datasets.load`. What is missing or `None` is as a run on this data set had it.

    Returns:
        A `soar_tf.datasets.Dataset`.

    Raises:
        InputError: If the data cannot be loaded or does not fit.
    """
    folders = [model.config["data_dir"] for model in models.values() if "data_dir" in model.config]
    carved = {
        name: model.config.get("validation_images")
        for name, model in models.items()
        if model.config.get("dataset") == dataset
    }
    if split != "test" and len(set(carved.values())) > 1:
        raise InputError(
            f"`split` must be test for models that set other images apart for validation: "
            f"`validation_images` is {carved}. Received: {split!r}."
        )
    trained = [m.config for m in models.values() if m.config.get("dataset") == dataset]
    settings = _reading(reading or {}, trained[0] if trained else {}, image_size)
    data = datasets.load(
        dataset,
        data_dir=data_dir or (folders[0] if folders else None),
        splits=(split,),
        validation_images=next(iter(carved.values()), None),
        image_size=tuple(image_size) if image_size else None,
        **settings,
    )
    for name, model in models.items():
        check_fits(model, data.image_shape, data.num_classes, name)
    return data


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


def validation_images(path, model, count, *, dataset=None, data_dir=None, image_size=None):
    """The first validation images of a model's data.

    Args:
        path: What the model was loaded from.
        model: The `LoadedModel`.
        count: Number of images.
        dataset: Data set's name; `None` takes that of a run or a zoo network.
        data_dir: Folder of tensorflow-datasets; `None` takes a run directory's own.
        image_size: `[height, width]`, or `None`.

    Returns:
        float32 `[count, H, W, C]` in [0, 1], fewer where there are fewer.

    Raises:
        InputError: If no data set is known, it cannot be loaded, or it does not fit the model.
    """
    dataset = dataset or model.config.get("dataset")
    if dataset is None:
        raise InputError("`dataset` is needed: only runs and zoo networks know their own.")
    return examples_for(
        {path: model},
        dataset,
        data_dir=data_dir,
        image_size=image_size,
        split="validation",
        limit=count,
    ).float_images()


def _reading(given, trained, image_size):
    """How images are read: as it is given, else as a run had it."""
    defaults = {"resize_crop": None, "channels": None, "orientation": True}
    if image_size:
        trained = {name: value for name, value in trained.items() if name != "resize_crop"}
    chosen = {name: trained.get(name, value) for name, value in defaults.items()}
    return chosen | {name: value for name, value in given.items() if value is not None}


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
