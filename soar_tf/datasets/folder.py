"""`folder:DIR`: image files in one subfolder per class.

Files are decoded here rather than by `keras.utils.image_dataset_from_directory`, because every file
has to be opened anyway to learn sizes and channels, and a corrupt one has to be named.
"""

import collections
import contextlib
import io
import pathlib
import re

import numpy as np

from soar_tf.datasets.dataset import SPLITS, Dataset, Split, needed, resize, stratified
from soar_tf.errors import InputError
from soar_tf.files import read_bytes

TENSORFLOW_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
"""The file types that TensorFlow decodes, as in `keras.utils.image_dataset_from_directory`."""

PILLOW_EXTENSIONS = (".jp2", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
"""The file types that Pillow decodes here."""

EXTENSIONS = tuple(sorted(TENSORFLOW_EXTENSIONS + PILLOW_EXTENSIONS))
"""All file types that are read; `Dataset.provenance` counts the files of other types."""

EXIF_ORIENTATION = 0x0112
"""The EXIF tag that says how a viewer turns an image; 1 is as stored."""

MAX_IMAGE_BYTES = 256 * 2**20
"""Largest size of an image file, in bytes."""

TEST_FRACTION, TEST_SEED = 0.2, 0


def load(path, wanted, image_size):
    """Reads the wanted splits of a folder.

    Args:
        path: A folder with subfolders train/, validation/, test/ (at least one of them) that each
            hold one subfolder per class, or a folder of class subfolders.
        wanted: Names of the splits.
        image_size: `(height, width)` in pixels, or `None` if all images share one size.

    Returns:
        `(dataset, available)`: the `Dataset` and the names of all splits in the folder.

    Raises:
        InputError: If the folder has no such layout, or if images cannot be read: all of them are
            named in one message.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"`folder:{path}` must name a folder. Received: no such folder.")
    files, names, available, provenance = _layout(path, root)
    chosen = {split: files[split] for split in needed(wanted, available)}
    notes = collections.Counter()
    images = _decode_all(path, chosen, image_size, notes)
    provenance += _remarks(root, names, notes)
    shapes = {}
    for split, members in chosen.items():
        shapes |= {
            image.shape: file for image, (file, _) in zip(images[split], members, strict=True)
        }
    sizes = {shape[:2]: file for shape, file in shapes.items()}
    if len(sizes) > 1:
        (size1, file1), (size2, file2) = list(sizes.items())[:2]
        raise InputError(
            f"`image_size` must be given for `folder:{path}`, whose images differ in size. "
            f"Received: None, with {file1} {size1} and {file2} {size2}."
        )
    channels = max((shape[2] for shape in shapes), default=1)
    splits = {
        split: Split(
            np.stack([np.repeat(i, channels // i.shape[2], axis=2) for i in images.pop(split)]),
            np.array([label for _, label in members]),
        )
        for split, members in chosen.items()
    }
    shape = (*next(iter(sizes)), channels) if sizes else (0, 0, 0)
    dataset = Dataset(f"folder:{path}", len(names), shape, splits, names, channels == 3, provenance)
    return dataset, available


def _layout(path, root):
    """Lists the files: `({split: [(file, label)]}, class names, available, provenance)`."""
    inside = _subfolders(root)
    if "train" in inside or (inside and set(inside) <= set(SPLITS)):
        available = tuple(split for split in SPLITS if split in inside)
        names = _class_names(root / available[0])
        files = {split: _files(root / split, names) for split in available}
        return files, names, available, f"Folder {path}."
    names = _class_names(root)
    files = _files(root, names)
    test = stratified(np.array([label for _, label in files]), TEST_FRACTION, TEST_SEED)
    parts = {
        "train": [file for file, is_test in zip(files, test, strict=True) if not is_test],
        "test": [file for file, is_test in zip(files, test, strict=True) if is_test],
    }
    provenance = (
        f"Folder {path} without splits: {test.sum()} of {len(files)} images, stratified by class, "
        f"became test (split seed {TEST_SEED})."
    )
    return parts, names, tuple(split for split in parts if parts[split]), provenance


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


def _files(folder, names):
    """Lists the image files of a split in order of class and name."""
    foreign = sorted(set(_subfolders(folder)) - set(names))
    if foreign:
        raise InputError(
            f"{folder} must hold the same classes as the first split ({', '.join(names)}). "
            f"Received: {', '.join(foreign)}."
        )
    files = []
    for label, name in enumerate(names):
        members = sorted((folder / name).rglob("*")) if (folder / name).is_dir() else []
        members = [p for p in members if p.suffix.lower() in EXTENSIONS and p.is_file()]
        if not members:
            raise InputError(
                f"{folder / name} must hold images of class {name!r} ({', '.join(EXTENSIONS)}). "
                "Received: none."
            )
        files += [(file, label) for file in members]
    return files


def _remarks(root, names, notes):
    """Returns sentences on what a reader of the folder may not expect, each after a space."""
    text = ""
    skipped = collections.Counter(
        p.suffix.lower() or "no suffix"
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.name.startswith(".") and p.suffix.lower() not in EXTENSIONS
    )
    if skipped:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(skipped.items()))
        text += f" Skipped as no images: {kinds}."
    for note, count in sorted(notes.items()):
        text += f" {note}: {count}."
    if all(re.fullmatch("[0-9]+", name) for name in names):
        pairs = zip(names, sorted(names, key=int), strict=True)
        moved = [label for label, (name, by_number) in enumerate(pairs) if name != by_number]
        if moved:
            text += (
                f" Classes are in the order of their names as text ({', '.join(names)}), not of "
                f"their numbers: class folder {names[moved[0]]} has label {moved[0]}."
            )
    return text


def _decode_all(path, chosen, image_size, notes):
    """Decodes all files: `{split: [image]}`; one error names every file that cannot be read."""
    images, errors = {}, {}
    for split, members in chosen.items():
        images[split] = []
        for file, _ in members:
            try:
                images[split].append(_decode(file, image_size, notes))
            except InputError as error:
                errors[file] = error
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise InputError(
            f"`folder:{path}` must hold readable images only. "
            f"Received: {len(errors)} files that are not: {', '.join(map(str, errors))}."
        )
    return images


def _decode(file, image_size, notes):
    """Decodes one file to uint8 `[H, W, 1 or 3]`, resized if a size is given.

    What of the file is not in the image is counted in `notes`.
    """
    import tensorflow as tf

    try:
        content = read_bytes(file, max_bytes=MAX_IMAGE_BYTES)
        if file.suffix.lower() in PILLOW_EXTENSIONS:
            image = _decode_with_pillow(file, content)
        else:
            image = tf.io.decode_image(content, expand_animations=False).numpy()
    except (tf.errors.OpError, OSError) as error:
        reason = re.sub(r"\{\{.*?\}\} ?", "", str(error).split(" [Op:")[0]).strip()
        reason = reason or type(error).__name__
        raise InputError(
            f"{file} must be a readable image ({', '.join(EXTENSIONS)}). Received: {reason}"
        ) from error
    _count_what_is_lost(content, notes)
    image = image[..., : 1 if image.shape[2] < 3 else 3]  # drops an alpha channel
    return resize(image[None], image_size)[0] if image_size else image


def _decode_with_pillow(file, content):
    """Decodes the first frame of a file to uint8 `[H, W, 1 or 3]`; alpha is dropped."""
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(
            f"{file} needs Pillow to be read. Received: it is not installed (pip install pillow)."
        ) from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode[0] in "IF":  # 16 or 32 bits: what range they cover, no file says
                raise InputError(
                    f"{file} must have 8 bits per channel. Received: Pillow mode {image.mode}."
                )
            grey = image.mode in ("1", "L", "LA")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except InputError:
        raise
    # A damaged file can raise nearly anything from Pillow's decoders.
    except Exception as error:
        reason = str(error).split("<_io")[0].strip() or type(error).__name__
        raise OSError(f"{reason}.") from error
    return pixels[..., None] if grey else pixels


def _count_what_is_lost(content, notes):
    """Adds to the counter `notes` what decoding leaves out; without Pillow nothing is known."""
    try:
        from PIL import Image
    except ImportError:
        return
    # Pillow refuses some files that TensorFlow reads: nothing is noted about those.
    with contextlib.suppress(Exception), Image.open(io.BytesIO(content)) as image:
        if image.mode[-1] in "Aa" or "transparency" in image.info:
            notes["Images whose transparency was dropped"] += 1
        if getattr(image, "is_animated", False):
            notes["Files of which only the first frame was read"] += 1
        # For a PNG file, `getexif` would decode all pixels.
        if image.format != "PNG" and image.getexif().get(EXIF_ORIENTATION, 1) != 1:
            notes["Images whose EXIF orientation was not applied"] += 1
