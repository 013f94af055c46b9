"""One image file: what its header says, and its pixels.

JPEG, PNG, GIF and BMP are decoded by TensorFlow inside the input pipeline, everything else by
Pillow: TensorFlow reads about four times as many JPEG files per second.
"""

import dataclasses
import io

import numpy as np

from soar_tf.errors import InputError, plain
from soar_tf.files import read_bytes

TENSORFLOW_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
"""The file types that TensorFlow decodes, as in `keras.utils.image_dataset_from_directory`."""

PILLOW_EXTENSIONS = (".jp2", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
"""The file types that Pillow decodes here."""

EXTENSIONS = tuple(sorted(TENSORFLOW_EXTENSIONS + PILLOW_EXTENSIONS))
"""All file types that are read; `Dataset.provenance` counts the files of other types."""

MAX_IMAGE_BYTES = 256 * 2**20
"""Largest size of an image file, in bytes."""

EXIF_ORIENTATION = 0x0112
"""The EXIF tag that says how a viewer turns an image; 1 is as stored."""

PILLOW, TRANSPARENT, ANIMATED, DEEP = 1, 2, 4, 8
"""Flags of a file: Pillow decodes it; it has transparency, more frames, 16 bits per channel."""

_TENSORFLOW = ("BMP", "GIF", "JPEG", "PNG")
_GREY = ("1", "L", "LA")
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


@dataclasses.dataclass(frozen=True)
class Look:
    """What is known of an image file before its pixels are decoded.

    Attributes:
        kind: Pillow's name of the format, or `""`.
        size: `(height, width)` in pixels, as stored.
        channels: 1 or 3, without transparency.
        orientation: EXIF orientation, 1 to 8.
        flags: The sum of the module's flags that hold.
    """

    kind: str
    size: tuple[int, int]
    channels: int
    orientation: int = 1
    flags: int = 0


def look(stream, head):
    """The `Look` of an open file, from its header; `None` if Pillow cannot read that."""
    from PIL import Image

    try:
        with Image.open(stream) as image:
            return _look(image, head)
    # A damaged file can raise nearly anything from Pillow; whether it is one, decoding will tell.
    except Exception:
        return None


def _look(image, head):
    flags, mode = 0, image.mode
    kind = "JPEG" if image.format == "MPO" else image.format  # a JPEG file with more pictures
    indexed = kind == "BMP" and mode not in ("RGB", "RGBA")  # TensorFlow takes indices for grey
    if kind not in _TENSORFLOW or indexed or mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        flags |= PILLOW
    if mode[-1] in "Aa" or "transparency" in image.info:
        flags |= TRANSPARENT
    if kind != "JPEG" and getattr(image, "is_animated", False):
        flags |= ANIMATED
    if mode[0] in "IF" or (kind == "PNG" and head[24:25] == b"\x10"):
        flags |= DEEP
    grey = kind != "GIF" and (mode in _GREY or mode[0] in "IF")  # GIF: TensorFlow gives colour
    orientation = _orientation(image, kind)
    return Look(kind, image.size[::-1], 1 if grey else 3, orientation, flags)


def _orientation(image, kind):
    """The EXIF orientation, 1 to 8; TIFF files Pillow turns by itself."""
    if kind == "TIFF":
        return 1
    # Of a PNG file `getexif` would decode all pixels.
    exif = _exif(image.info.get("exif")) if kind == "PNG" else image.getexif()
    orientation = exif.get(EXIF_ORIENTATION, 1)
    return orientation if orientation in range(2, 9) else 1


def _exif(data):
    from PIL import Image

    exif = Image.Exif()
    exif.load(data or b"")
    return exif


def ends_well(kind, tail, size, head):
    """Whether a file's last bytes are those of a whole file of its kind; if not, it may be one."""
    if kind == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if kind == "GIF":
        return tail.rstrip(b"\0").endswith(b";")
    return kind in _ENDS and _ENDS[kind] in tail


def look_closely(file, content, seen):
    """The `Look` of a file by decoding it; `seen` is what its header says, or `None`.

    Raises:
        InputError: If it cannot be decoded.
    """
    with_pillow = file.suffix.lower() in PILLOW_EXTENSIONS or (seen and seen.flags & PILLOW)
    image = decoded(file, content, with_pillow)
    if seen is not None:
        return seen
    return Look("", image.shape[:2], image.shape[2], flags=PILLOW if with_pillow else 0)


def decoded(file, content=None, with_pillow=False):
    """The pixels of a file, uint8 `[h, w, 1 or 3]`: first frame, no alpha, not turned.

    Raises:
        InputError: If it cannot be decoded; its name is in it.
    """
    import tensorflow as tf

    try:
        content = read_bytes(file, max_bytes=MAX_IMAGE_BYTES) if content is None else content
        if with_pillow:
            return _by_pillow(file, content)
        return without_alpha(tf.io.decode_image(content, expand_animations=False)).numpy()
    except (tf.errors.OpError, OSError) as error:
        raise unreadable(file, plain(error)) from error


def unreadable(file, reason):
    """The error for a file that is no image, or a damaged one."""
    return InputError(
        f"{file} must be a readable image ({', '.join(EXTENSIONS)}). Received: {reason}"
    )


def without_alpha(image):
    """An image `[h, w, 1 to 4]` with 1 or 3 channels, as a tensor."""
    import tensorflow as tf

    return image[..., : tf.where(tf.shape(image)[2] < 3, 1, 3)]


def _by_pillow(file, content):
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode[0] in "IF":  # 16 or 32 bits: what range they cover, no file says
                raise InputError(
                    f"{file} must have 8 bits per channel. Received: Pillow mode {image.mode}."
                )
            grey = image.mode in _GREY
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except InputError:
        raise
    # A damaged file can raise nearly anything from Pillow's decoders.
    except Exception as error:
        reason = str(error).split("<_io")[0].strip() or type(error).__name__
        raise OSError(f"{reason}.") from error
    return pixels[..., None] if grey else pixels
