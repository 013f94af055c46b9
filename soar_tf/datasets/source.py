"""What a source of data sets is: one object per source, registered by its name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from soar_tf.datasets.reading import Reading


@dataclasses.dataclass(frozen=True)
class Request:
    """What `soar_tf.datasets.load` asks a source for.

    Attributes:
        name: The data set's name as it was given: `"npz:mine.npz"`.
        place: What follows the colon: `"mine.npz"`; empty without one.
        splits: Names of the wanted splits.
        data_dir: Folder of prepared TensorFlow Datasets, or `None`.
        reading: How images are to be read.
        memory_limit: Bytes of a split's images beyond which they are read when they are needed,
            where the source can do that.
    """

    name: str
    place: str
    splits: tuple[str, ...]
    data_dir: str | None
    reading: Reading
    memory_limit: int


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, or a family of data sets whose names begin alike, such as `npz:FILE`.

    Attributes:
        summary: One line for `soar-tf list datasets`: image shape, classes, licence.
        open: Called with a `Request`; returns `(dataset, names of all its splits)`, where the
            `Dataset` has the wanted splits that there are.
        reads_as_wanted: Whether `open` itself applies the request's `reading`; else images are
            resized and their channels changed afterwards.
    """

    summary: str
    open: Callable[[Request], Any]
    reads_as_wanted: bool = False
