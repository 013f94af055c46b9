"""Elastic deformation: a random affine map, then smooth random displacements of the pixels."""

import tensorflow as tf

from soar_tf.corruptions import filters
from soar_tf.ops import random

# In units of the image's height: length of the displacements before smoothing, standard deviation
# of the smoothing, and largest shift of the affine map's three points.
_ELASTIC = (
    (0.0, 0.0, 0.08),
    (0.05, 0.2, 0.07),
    (0.08, 0.06, 0.06),
    (0.1, 0.04, 0.05),
    (0.1, 0.03, 0.03),
)


def elastic(x, severity, keys):
    """Deforms the image: first by a random affine map, then pixel by pixel.

    Args:
        x: float32 tensor `[B, H, W, C]`, pixels in [0, 1].
        severity: 1 to 5.
        keys: uint32 tensor `[B, 2]`, the examples' noise keys.

    Returns:
        float32 tensor `[B, H, W, C]`.
    """
    length, smoothing, shift = (share * x.shape[1] for share in _ELASTIC[severity - 1])
    rows, columns = tf.meshgrid(
        tf.range(x.shape[1], dtype=tf.float32),
        tf.range(x.shape[2], dtype=tf.float32),
        indexing="ij",
    )
    corners = shift * random.uniform(random.derive(keys, "affine"), (3, 2), -1.0, 1.0)
    x = sample(x, *affine(corners, rows, columns), pixel_twice=False)
    if length == 0:
        return x
    matrices = [
        filters.gaussian_matrix(side, smoothing, truncate=3, border="reflect")
        for side in x.shape[1:3]
    ]
    noise = random.uniform(random.derive(keys, "displacement"), (*x.shape[1:3], 2), -1.0, 1.0)
    moved = length * filters.along_sides(noise, *matrices)
    return sample(x, rows + moved[..., 0], columns + moved[..., 1], pixel_twice=True)


def affine(shifts, rows, columns):
    """The source position of each pixel of an affinely mapped image.

    The map shifts three corners of a square around the centre of the image.

    Args:
        shifts: float32 tensor `[B, 3, 2]`, the corners' shifts in (column, row).
        rows: float32 tensor `[H, W]`, each pixel's row.
        columns: float32 tensor `[H, W]`, each pixel's column.

    Returns:
        `(rows, columns)` in the original image, float32 tensors `[B, H, W]`.
    """
    height, width = rows.shape
    middle = tf.constant([height // 2, width // 2], tf.float32)
    reach = min(height, width) // 3
    corners = middle + tf.constant([[reach, reach], [reach, -reach], [-reach, -reach]], tf.float32)
    shifted = corners + shifts
    ones = tf.ones_like(shifted[..., :1])
    # The inverse map is affine and takes the shifted corners back to their original positions.
    inverse = tf.linalg.solve(
        tf.concat([shifted, ones], -1), tf.broadcast_to(corners, tf.shape(shifted))
    )
    points = tf.stack([columns, rows, tf.ones_like(rows)], -1)
    origin = tf.einsum("hwk,bkd->bhwd", points, inverse)
    return origin[..., 1], origin[..., 0]


def sample(x, rows, columns, *, pixel_twice):
    """Samples images bilinearly, mirroring them at their edges.

    Args:
        x: float32 tensor `[B, H, W, C]`.
        rows: float32 tensor `[B, H, W]`, row coordinates.
        columns: float32 tensor `[B, H, W]`, column coordinates.
        pixel_twice: Whether the mirror image repeats the last pixel.

    Returns:
        float32 tensor `[B, H, W, C]`.
    """
    top, left = tf.floor(rows), tf.floor(columns)
    result = 0.0
    for down in (0, 1):
        for right in (0, 1):
            weight = tf.abs(1 - down - (rows - top)) * tf.abs(1 - right - (columns - left))
            index = tf.stack(
                [
                    _mirrored(tf.cast(top, tf.int32) + down, x.shape[1], pixel_twice),
                    _mirrored(tf.cast(left, tf.int32) + right, x.shape[2], pixel_twice),
                ],
                axis=-1,
            )
            result += weight[..., None] * tf.gather_nd(x, index, batch_dims=1)
    return result


def _mirrored(index, side, pixel_twice):
    period = 2 * side if pixel_twice else max(2 * side - 2, 1)
    index = tf.math.floormod(index, period)
    return tf.where(index < side, index, period - index - (1 if pixel_twice else 0))
