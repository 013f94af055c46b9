"""How an image becomes one of the shape that a network takes: size, channels, orientation, crops.

All of it is TensorFlow's operations, image by image, so that it gives the same bits inside a
pipeline and outside.
"""

import dataclasses

import numpy as np

from soar_tf.datasets.images import Converted, InMemory
from soar_tf.errors import InputError
from soar_tf.validation import check_choice, check_integer

CENTRE = 0.875
"""Side of the central square that evaluation sees of an image, as a share of its shorter side."""

TRIES = 10
"""Draws of a random crop's area and aspect ratio before the whole image is taken."""

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Range of a random crop's share of the image's area, and of its width over its height."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files are turned into images of one shape.

    Args:
        image_size: `(height, width)` in pixels to resize to, or `None` to keep the size.
        resize_crop: Side in pixels of square crops: random ones in training, the central one in
            evaluation; or `None`.
        channels: 1 for grey, 3 for colour, or `None` to keep what there is.
        orientation: Whether images are turned as their EXIF orientation says.

    Raises:
        InputError: If a value is out of range, or both sizes are given.
    """

    image_size: tuple | None = None
    resize_crop: int | None = None
    channels: int | None = None
    orientation: bool = True

    def __post_init__(self):
        object.__setattr__(self, "image_size", _image_size(self.image_size))
        if self.resize_crop is not None:
            side = check_integer(self.resize_crop, "resize_crop", minimum=1)
            object.__setattr__(self, "resize_crop", side)
            if self.image_size is not None:
                raise InputError("`resize_crop` cannot be combined with `image_size`.")
        if self.channels is not None:
            channels = check_integer(self.channels, "channels")
            object.__setattr__(self, "channels", check_choice(channels, "channels", (1, 3)))

    @property
    def size(self):
        """`(height, width)` of the images, or `None`: that of the files."""
        return (self.resize_crop,) * 2 if self.resize_crop else self.image_size

    def fitted(self, image):
        """One image `[h, w, C]` in the size that evaluation sees it in."""
        import tensorflow as tf

        if self.resize_crop:
            image = central_square(image)
        if self.size is None:
            return image
        resized = tf.cond(
            tf.reduce_all(tf.shape(image)[:2] == self.size),
            lambda: image,
            lambda: resize(image[None], self.size)[0],
        )
        return tf.ensure_shape(resized, (*self.size, image.shape[2]))

    def of(self, split):
        """A split of images of one shape, in size and channels as they are wanted."""
        height, width, channels = split.image_shape
        if self.channels and self.channels != channels:
            wanted = self.channels
            converted = Converted(
                split.source,
                lambda x: to_channels(x, wanted),
                (height, width, wanted),
                f"channels={wanted}",
            )
            split = split.converted(_kept(split, converted))
        if split.resize_crop:
            return split
        if self.resize_crop:
            split = split.converted(self._sized(split, self._central, crops=True))
            split.resize_crop = self.resize_crop
        elif self.size and self.size != (height, width):
            sized = self._sized(split, lambda x: resize(x, self.size))
            split = split.converted(_kept(split, sized))
        return split

    def _central(self, images):
        import tensorflow as tf

        images = tf.convert_to_tensor(images)
        return tf.map_fn(
            self.fitted,
            images,
            fn_output_signature=tf.TensorSpec((*self.size, images.shape[-1]), images.dtype),
        )

    def _sized(self, split, function, crops=False):
        shape = (*self.size, split.image_shape[2])
        return Converted(split.source, function, shape, f"{self.size} {crops}", crops)


def _kept(split, converted):
    """Images that come from memory stay there, converted."""
    if isinstance(split.source, InMemory):
        return InMemory(converted.read(np.arange(len(converted))))
    return converted


def _image_size(value):
    if value is None:
        return None
    try:
        height, width = value
    except (TypeError, ValueError) as error:
        raise InputError(f"`image_size` must be (height, width). Received: {value!r}.") from error
    return tuple(check_integer(side, "image_size", minimum=1) for side in (height, width))


def resize(images, size):
    """Resizes `[n, h, w, C]` to `size` (bilinear, antialiased), keeping uint8 or float32."""
    import tensorflow as tf

    images = tf.convert_to_tensor(images)
    resized = tf.image.resize(images, size, antialias=True)
    if images.dtype == tf.uint8:
        resized = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    return resized


def to_channels(images, channels):
    """Images `[..., c]` of 1 or 3 channels with 1 or 3.

    Grey is the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, rounded as Pillow rounds it.
    """
    import tensorflow as tf

    images = tf.convert_to_tensor(images)
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return tf.repeat(images, 3, axis=-1)
    if images.dtype != tf.uint8:
        return tf.reduce_sum(images * [0.299, 0.587, 0.114], axis=-1, keepdims=True)
    weighted = tf.cast(images, tf.int32) * [19595, 38470, 7471]  # in units of 2**-16
    luma = tf.reduce_sum(weighted, axis=-1, keepdims=True)
    return tf.cast(tf.bitwise.right_shift(luma + 2**15, 16), tf.uint8)


def turned(image, orientation):
    """One image `[h, w, C]` as its EXIF orientation, 1 to 8, wants it shown."""
    import tensorflow as tf

    def among(*values):
        return tf.reduce_any(tf.cast(orientation, tf.int32) == values)

    def turn():
        upright = tf.cond(among(5, 6, 7, 8), lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        upright = tf.cond(among(3, 4, 7, 8), lambda: upright[::-1], lambda: upright)
        return tf.cond(among(2, 3, 6, 7), lambda: upright[:, ::-1], lambda: upright)

    return tf.cond(among(2, 3, 4, 5, 6, 7, 8), turn, lambda: image)


def central_square(image):
    """The central square of an image `[h, w, C]`, 7/8 of its shorter side long."""
    import tensorflow as tf

    size = tf.shape(image)[:2]
    side = tf.cast(tf.round(CENTRE * tf.cast(tf.reduce_min(size), tf.float32)), tf.int32)
    side = tf.maximum(side, 1)
    top, left = tf.unstack((size - side) // 2)
    return image[top : top + side, left : left + side]


def random_crop(image, key, side):
    """A random part of an image, resized to a square and mirrored half of the time.

    The part's area and aspect ratio are drawn as in Szegedy et al. (2015, arXiv:1409.4842): a share
    of the image's area uniform in [0.08, 1], a ratio log-uniform in [3/4, 4/3], anew up to ten
    times until it fits; after that the whole image is taken.

    Args:
        image: uint8 or float32 `[h, w, C]`.
        key: uint32 `[1, 2]`, the example's noise key, see `soar_tf.ops.random`.
        side: Side of the square in pixels.

    Returns:
        `[side, side, C]`, the type of `image`.
    """
    import tensorflow as tf

    from soar_tf.ops import random

    unit = random.uniform(key, (2 * TRIES + 3,))[0]
    size = tf.shape(image)[:2]
    area = tf.cast(size[0] * size[1], tf.float32)
    shares = AREA[0] + unit[:TRIES] * (AREA[1] - AREA[0])
    log_low, log_high = (tf.math.log(float(ratio)) for ratio in RATIO)
    ratios = tf.exp(log_low + unit[TRIES : 2 * TRIES] * (log_high - log_low))
    sides = tf.stack([tf.sqrt(area * shares / ratios), tf.sqrt(area * shares * ratios)], axis=1)
    sides = tf.maximum(tf.cast(tf.round(sides), tf.int32), 1)
    fits = tf.reduce_all(sides <= size, axis=1)
    first = tf.argmax(tf.cast(fits, tf.int32))
    part = tf.where(tf.reduce_any(fits), sides[first], size)
    free = tf.cast(size - part + 1, tf.float32)
    # The minimum guards against the product being rounded up to the number of places.
    corner = tf.minimum(tf.cast(unit[2 * TRIES : 2 * TRIES + 2] * free, tf.int32), size - part)
    top, left = tf.unstack(corner)
    cut = image[top : top + part[0], left : left + part[1]]
    cut = tf.ensure_shape(resize(cut[None], (side, side))[0], (side, side, image.shape[2]))
    return tf.cond(unit[-1] < 0.5, lambda: cut[:, ::-1], lambda: cut)
