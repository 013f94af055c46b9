"""The images that loaded models are judged on, read as a run had them."""

import sys

from soar_tf import datasets
from soar_tf.errors import InputError
from soar_tf.models import loading
from soar_tf.models.loading import LoadedModel


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
