"""Crops, mirroring and cutout of whole batches, drawn per example and epoch."""

from soar_tf.errors import InputError
from soar_tf.validation import check_integer

# What a square of cutout is filled with: the networks' normalisation makes 0 of it.
CUTOUT_GREY = 0.5


def padding(side):
    """Zero padding at each end of a side of that many pixels."""
    return 4 if side >= 32 else max(1, side // 8)


def draw_augmentation(seed, epoch, indices, size):
    """Draws, per example, the crop's offset in the padded image and whether to mirror it.

    Args:
        seed: The training seed.
        epoch: Int or int64 scalar tensor.
        indices: int64 `[B]`: the examples' positions in the split.
        size: `(H, W)` in pixels.

    Returns:
        `(rows, columns, flip)`: int32 `[B]` in 0..2 * padding, the same, and bool `[B]`.
    """
    import tensorflow as tf

    from soar_tf.ops import random

    keys = random.example_keys(seed, indices, step=epoch, purpose="augmentation")
    unit = random.uniform(keys, (3,))
    rows, columns = (
        # The minimum guards against the product being rounded up to the number of offsets.
        tf.minimum(tf.cast(unit[:, i] * (2 * padding(size[i]) + 1), tf.int32), 2 * padding(size[i]))
        for i in (0, 1)
    )
    return rows, columns, unit[:, 2] < 0.5


def augment_batch(images, rows, columns, flip):
    """Crops each image out of its zero-padded self, then mirrors it where `flip`.

    Args:
        images: `[B, H, W, C]`, any type.
        rows: int32 `[B]`: first row of the crop in the padded image; the padding = unshifted.
        columns: int32 `[B]`: first column, likewise.
        flip: bool `[B]`.

    Returns:
        A tensor like `images`.
    """
    import tensorflow as tf

    _, height, width, channels = images.shape
    top, left = padding(height), padding(width)
    padded = tf.pad(images, [[0, 0], [top, top], [left, left], [0, 0]])
    tall, wide = height + 2 * top, width + 2 * left
    column = tf.range(width)[None, :]
    column = tf.where(flip[:, None], width - 1 - column, column) + columns[:, None]
    row = tf.range(height)[None, :] + rows[:, None] + tall * tf.range(tf.shape(images)[0])[:, None]
    # One flat gather of pixels is faster than a gather per axis.
    pixel = row[:, :, None] * wide + column[:, None, :]
    return tf.gather(tf.reshape(padded, [-1, channels]), pixel)


def check_cutout(side, size):
    """Checks the side of cutout's square.

    Args:
        side: Side in pixels, or `None` for no cutout.
        size: `(H, W)` of the images in pixels.

    Returns:
        `side` as an int, or `None`.

    Raises:
        InputError: If it is below 1 or larger than the images.
    """
    if side is None:
        return None
    side = check_integer(side, "cutout", minimum=1)
    if side > min(size):
        raise InputError(
            f"`cutout` must be at most {min(size)} pixels for images of {size[0]}x{size[1]}. "
            f"Received: {side}."
        )
    return side


def draw_cutout(seed, epoch, indices, size):
    """Draws, per example, the centre of cutout's square: a uniform pixel.

    Args:
        seed: The training seed.
        epoch: Int or int64 scalar tensor.
        indices: int64 `[B]`: the examples' positions in the split.
        size: `(H, W)` in pixels.

    Returns:
        `(rows, columns)`: int32 `[B]` in 0..H - 1 and in 0..W - 1.
    """
    import tensorflow as tf

    from soar_tf.ops import random

    keys = random.example_keys(seed, indices, step=epoch, purpose="cutout")
    unit = random.uniform(keys, (2,))
    return tuple(tf.minimum(tf.cast(unit[:, i] * size[i], tf.int32), size[i] - 1) for i in (0, 1))


def cut_out(images, rows, columns, side):
    """Fills a square of each image with grey.

    Args:
        images: float32 `[B, H, W, C]` in [0, 1].
        rows: int32 `[B]`: the row of the square's centre. Of an even side it is the one below the
            middle: the square begins `side // 2` rows above it.
        columns: int32 `[B]`, likewise.
        side: The square's side in pixels.

    Returns:
        A tensor like `images`.
    """
    import tensorflow as tf

    def covered(centres, length):
        first = centres[:, None] - side // 2
        place = tf.range(length)[None, :]
        return (place >= first) & (place < first + side)

    inside = covered(rows, images.shape[1])[:, :, None] & covered(columns, images.shape[2])[:, None]
    return tf.where(inside[..., None], CUTOUT_GREY, images)
