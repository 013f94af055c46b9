"""Settings: dataclass fields that know what the command line says of them.

A setting's help, allowed values and default are written once, in its field. `soar_tf.cli.settings`
makes the options of commands of them. This module imports nothing heavy.
"""

import dataclasses
from typing import Any

from soar_tf import registry


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the command line says of a field.

    Attributes:
        help: What it is; `{option}` may not appear.
        type: What values it takes: `"positive"` or `"natural"` (integers), `"number"`,
            `"schedule"`, `"size"`, `"path"`, `"model"`, `"pairs"` (`KEY=VALUE`, repeatable),
            `"text"`, `"flag"` (without a value), `"switch"` (`--name/--no-name`), a tuple of
            choices, or a `soar_tf.registry.Registry`.
        unset: What the help says of the default where that is not the field's own, such as
            `"by data set"`; `""`: nothing.
        metavar: What the help calls the value; `None`: what its type is called.
        option: The option's name; `None`: the field's, with hyphens.
        multiple: Whether the option is repeatable and its values make a list.
        late: Whether the command itself must see that the option was not given, although there is
            a default.
    """

    help: str
    type: Any = "text"
    unset: str | None = None
    metavar: str | None = None
    option: str | None = None
    multiple: bool = False
    late: bool = False


def setting(default: Any, help: str, **about: Any) -> Any:
    """A dataclass field with a `Setting`; `about` are the `Setting`'s other attributes."""
    metadata = {"setting": Setting(help, **about)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def settings(cls: type) -> dict[str, tuple[Setting, Any]]:
    """The settings of a dataclass in order: `{name: (Setting, default)}`."""
    return {
        field.name: (
            field.metadata["setting"],
            None if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(cls)
        if "setting" in field.metadata
    }


@dataclasses.dataclass
class ImageSettings:
    """Which images a command reads, and how: the same for all commands.

    Attributes:
        dataset: Data set's name or scheme, see `soar_tf.datasets`.
        data_dir: Folder of prepared tensorflow-datasets, or `None` for their default.
        image_size: `[height, width]` to resize images to, or `None`.
        resize_crop: Side in pixels of square crops: random resized ones in training, the central
            one in evaluation; or `None`.
        channels: 1 turns colour into grey, 3 grey into colour; `None` keeps what there is.
        orientation: Whether images of a folder are turned as their EXIF orientation says.
    """

    dataset: str | None = setting(
        None,
        "Data set: digits, cifar10, cifar100, mnist, fashion_mnist, svhn_cropped, tfds:NAME, "
        "npz:FILE or folder:DIR; see `soar-tf list datasets`.",
        type=registry.DATASETS,
        metavar="NAME",
        unset="a run's own; for train digits",
    )
    data_dir: str | None = setting(
        None,
        "Folder of tensorflow-datasets.",
        type="path",
        metavar="DIR",
        unset="~/tensorflow_datasets",
    )
    image_size: list | None = setting(
        None, "Resize images, in pixels.", type="size", unset="as they are"
    )
    resize_crop: int | None = setting(
        None,
        "Square crops of this side: in training random ones of random size, mirrored half of the "
        "time, else the central one. Instead of --image-size.",
        type="positive",
        metavar="PIXELS",
        unset="none; a run's own",
    )
    channels: int | None = setting(
        None,
        "1: colour to grey; 3: grey to colour.",
        type=(1, 3),
        unset="as they are; a run's own",
    )
    orientation: bool | None = setting(
        None,
        "Turn a folder's images as their EXIF orientation says, as viewers do.",
        type="switch",
        unset="turn them; a run's own",
    )


LIMIT = (
    "Use a sample of N {}: the first ones where the order is random, as in the named data sets "
    "and those of tensorflow-datasets, else the same share of every class; always the same ones."
)


def same_as(cls: type, name: str, default: Any) -> Any:
    """A field with the setting of another dataclass's field, and a default of its own."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return dataclasses.field(default=default, metadata=fields[name].metadata)
