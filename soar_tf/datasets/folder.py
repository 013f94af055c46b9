"""`folder:DIR`: image files in one subfolder per class, decoded when they are needed.

Files are decoded here rather than by `keras.utils.image_dataset_from_directory`, because a batch
must depend on its examples' numbers alone, and a corrupt file has to be named.
"""

import collections
import pathlib
import re

import numpy as np

from soar_tf.datasets import decoding, listing
from soar_tf.datasets.dataset import SPLITS, Dataset, needed
from soar_tf.datasets.decoding import EXTENSIONS
from soar_tf.datasets.folder_images import FolderImages, shown_sizes
from soar_tf.datasets.reading import Reading
from soar_tf.datasets.sampling import stratified
from soar_tf.datasets.source import Source
from soar_tf.datasets.split import Split
from soar_tf.errors import InputError

TEST_FRACTION, TEST_SEED = 0.2, 0

_NOTES = {
    decoding.TRANSPARENT: "Images whose transparency was dropped",
    decoding.ANIMATED: "Files of which only the first frame was read",
    decoding.DEEP: "Images of 16 bits per channel read by the upper 8",
}
_SHOWN = 20
_LIKE_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


def load(path, wanted, reading=None):
    """Lists the wanted splits of a folder, after a check of every file's header.

    Args:
        path: A folder with subfolders train/, validation/, test/ (at least one of them) that each
            hold one subfolder per class, or a folder of class subfolders.
        wanted: Names of the splits.
        reading: The `Reading`; `None` for one without settings.

    Returns:
        `(dataset, available)`: the `Dataset` and the names of all splits in the folder.

    Raises:
        InputError: If the folder has no such layout, or if images cannot be read: all of them are
            named in one message.
    """
    reading = reading or Reading()
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"`folder:{path}` must name a folder. Received: no such folder.")
    everything, status = listing.walk(root)
    files, names, available, provenance = _layout(path, root, everything)
    chosen = {split: files[split] for split in needed(wanted, available)}
    splits, headers = _splits(path, root, everything, status, chosen, reading)
    remarks = _remarks(everything, names, headers, reading)
    lines = (provenance, *_lines(path, names, splits, headers, remarks))
    shape = next(iter(splits.values())).image_shape if splits else (0, 0, 0)
    dataset = Dataset(
        name=f"folder:{path}",
        num_classes=len(names),
        image_shape=shape,
        splits=splits,
        class_names=names,
        augment=shape[2] == 3,
        provenance=" ".join([provenance, *remarks]),
        reading=lines,
    )
    return dataset, available


def _splits(path, root, everything, status, chosen, reading):
    """The `Split`s of the chosen files, and all their headers."""
    rows = np.concatenate([rows for rows, _ in chosen.values()]) if chosen else np.zeros(0, int)
    paths = [everything[row] for row in rows]
    headers, errors = listing.examine(root, paths, status[rows])
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise InputError(
            f"`folder:{path}` must hold readable images only. Received: {len(errors)} files that "
            f"are not: {', '.join(str(pathlib.Path(root, name)) for name in errors)}."
        )
    size = reading.size or _common_size(path, root, paths, headers, reading)
    channels = reading.channels or int(headers["channels"].max(initial=1))
    splits, start = {}, 0
    for split, (members, labels) in chosen.items():
        part = slice(start, start + len(members))
        start = part.stop
        images = FolderImages(root, paths[part], headers[part], (*size, channels), reading)
        splits[split] = Split(images, labels)
        splits[split].resize_crop = reading.resize_crop
    return splits, headers


def _common_size(path, root, paths, headers, reading):
    sizes = shown_sizes(headers, reading)
    if len(sizes) == 0:
        return (0, 0)
    other = np.flatnonzero((sizes != sizes[0]).any(axis=1))
    if len(other):
        first, second = (
            f"{pathlib.Path(root, paths[row])} {tuple(sizes[row].tolist())}"
            for row in (0, other[0])
        )
        raise InputError(
            f"`image_size` must be given for `folder:{path}`, whose images differ in size. "
            f"Received: None, with {first} and {second}."
        )
    return tuple(sizes[0].tolist())


def _layout(path, root, everything):
    """Sorts the files: `({split: (rows, labels)}, class names, available, provenance)`."""
    inside = _subfolders(root)
    _check_split_names(path, inside)
    if "train" in inside or (inside and set(inside) <= set(SPLITS)):
        available = tuple(split for split in SPLITS if split in inside)
        names = _class_names(root / available[0])
        files = {split: _files(root, (split,), names, everything) for split in available}
        provenance = f"Folder {path}, whose subfolders are the splits: {', '.join(available)}."
        return files, names, available, provenance
    names = _class_names(root)
    rows, labels = _files(root, (), names, everything)
    test = stratified(labels, TEST_FRACTION, TEST_SEED)
    parts = {"train": (rows[~test], labels[~test]), "test": (rows[test], labels[test])}
    provenance = (
        f"Folder {path} without splits: {test.sum()} of {len(rows)} images, stratified by class, "
        f"became test (split seed {TEST_SEED})."
    )
    return parts, names, tuple(split for split in parts if len(parts[split][0])), provenance


def _check_split_names(path, inside):
    """Refuses splits under other names, which would be read as classes or not at all."""
    foreign = [name for name in inside if name not in SPLITS and name.lower() in _LIKE_SPLITS]
    others = [name for name in inside if name not in SPLITS and name not in foreign]
    if foreign and ("train" in inside or not others):
        raise InputError(
            f"`folder:{path}` must call its splits {', '.join(SPLITS)}. "
            f"Received: {', '.join(foreign)}."
        )


def _subfolders(folder):
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_names(folder):
    names = tuple(_subfolders(folder))
    if len(names) < 2:
        raise InputError(
            f"{folder} must hold one subfolder per class, at least 2. "
            f"Received: {len(names)} ({', '.join(names) or 'none'})."
        )
    return names


def _files(root, prefix, names, everything):
    """The image files of a split in order of class and name: positions in the list, labels."""
    folder = root.joinpath(*prefix)
    foreign = sorted(set(_subfolders(folder)) - set(names))
    if foreign:
        raise InputError(
            f"{folder} must hold the same classes as the first split ({', '.join(names)}). "
            f"Received: {', '.join(foreign)}."
        )
    label_of, depth = {name: label for label, name in enumerate(names)}, len(prefix)
    rows, labels = [], []
    for row, file in enumerate(everything):
        parts = file.split("/", depth + 1)
        if tuple(parts[:depth]) != prefix or len(parts) < depth + 2 or not _is_image(file):
            continue
        if (label := label_of.get(parts[depth])) is not None:
            rows.append(row)
            labels.append(label)
    rows, labels = np.array(rows, np.int64), np.array(labels, np.int64)
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        name = names[empty[0]]
        raise InputError(
            f"{folder / name} must hold images of class {name!r} ({', '.join(EXTENSIONS)}). "
            "Received: none."
        )
    order = np.argsort(labels, kind="stable")
    return rows[order], labels[order]


def _is_image(file):
    name = pathlib.PurePosixPath(file)
    return name.suffix.lower() in EXTENSIONS and not name.name.startswith(".")


def _is_hidden_image(file):
    return file.name.startswith(".") and file.suffix.lower() in EXTENSIONS


def _by_numbers(name):
    """A name's key for the order that people expect: numbers in it count as numbers."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


def _remarks(everything, names, headers, reading):
    """Sentences on what a reader of the folder may not expect."""
    remarks = []
    others = [pathlib.PurePosixPath(file) for file in everything if not _is_image(file)]
    skipped = collections.Counter(
        file.suffix.lower() or "no suffix" for file in others if not file.name.startswith(".")
    )
    if skipped:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(skipped.items()))
        remarks.append(f"Skipped as no images: {kinds}.")
    if count := sum(map(_is_hidden_image, others)):
        remarks.append(f"Hidden image files that were skipped: {count}.")
    if count := sum(file.count("/") == 0 and _is_image(file) for file in everything):
        remarks.append(f"Images outside of the class folders that were skipped: {count}.")
    for flag, note in _NOTES.items():
        if count := np.count_nonzero(headers["flags"] & flag):
            remarks.append(f"{note}: {count}.")
    if count := np.count_nonzero(headers["orientation"] > 1):
        done = "was applied" if reading.orientation else "was not applied"
        remarks.append(f"Images whose EXIF orientation {done}: {count}.")
    pairs = zip(names, sorted(names, key=_by_numbers), strict=True)
    moved = [label for label, (name, by_number) in enumerate(pairs) if name != by_number]
    if moved:
        remarks.append(
            f"Classes are in the order of their names as text ({', '.join(names)}), not of their "
            f"numbers: class folder {names[moved[0]]} has label {moved[0]}."
        )
    return remarks


def _lines(path, names, splits, headers, remarks):
    """What was read as what, for people: classes in order, counts, sizes, remarks."""
    lines = [f"folder:{path}: {len(names)} classes, labels in this order: {_listed(names)}."]
    for name, split in splits.items():
        counts = np.bincount(split.labels, minlength=len(names))
        lines.append(f"{name}: {len(split)} images, by class {_listed(counts.tolist())}.")
    if len(headers):
        heights, widths = headers["height"], headers["width"]
        shape = next(iter(splits.values())).image_shape
        lines.append(
            f"Files of {heights.min()}x{widths.min()} to {heights.max()}x{widths.max()} pixels "
            f"(height x width), read as {'x'.join(map(str, shape))}."
        )
    return (*lines, *remarks)


def _listed(values):
    shown = ", ".join(map(str, values[:_SHOWN]))
    return shown if len(values) <= _SHOWN else f"{shown}, ... ({len(values)})"


FOLDER = Source(
    "image files: DIR/train/CLASS/..., DIR/test/CLASS/..., or DIR/CLASS/...",
    lambda request: load(request.place, request.splits, request.reading),
    reads_as_wanted=True,
)
