"""Linear maps along an axis of an image, as matrices: smoothing and resizing."""

import math

import numpy as np
import tensorflow as tf


def along_sides(x, rows, columns):
    """Applies one matrix to every column and another to every row of each channel.

    Args:
        x: float32 tensor `[B, H, W, C]`.
        rows: NumPy array `[h, H]`.
        columns: NumPy array `[w, W]`.

    Returns:
        float32 tensor `[B, h, w, C]`.
    """
    rows, columns = (tf.constant(matrix, tf.float32) for matrix in (rows, columns))
    return tf.einsum("ih,bhwc,jw->bijc", rows, x, columns)


def gaussian_matrix(side, sigma, *, truncate, border):
    """The matrix of smoothing with a sampled Gaussian along a side.

    Args:
        side: Number of pixels n.
        sigma: Standard deviation in pixels.
        truncate: Radius of the kernel in standard deviations.
        border: `"nearest"` repeats the last pixel, `"reflect"` mirrors the image at its edge.

    Returns:
        NumPy array `[n, n]`; every row sums to 1.
    """
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((side, side))
    for row in range(side):
        columns = row + offsets
        inside = np.clip(columns, 0, side - 1) if border == "nearest" else reflected(columns, side)
        np.add.at(matrix[row], inside, weights)
    return matrix


def reflected(index, side):
    """Mirrors indices outside 0 to n - 1 at the edge of the last pixel: `b a | a b`."""
    index = np.mod(index, 2 * side)
    return np.where(index < side, index, 2 * side - 1 - index)


def box_matrix(source, target):
    """Resizing with a box filter: each new pixel is the mean of the pixels whose centres it covers.

    When enlarging, each new pixel is the old one that contains its centre.

    Args:
        source: Number of pixels before.
        target: Number of pixels after.

    Returns:
        NumPy array `[target, source]`; every row sums to 1.
    """
    scale = source / target
    width = max(scale, 1.0)
    matrix = np.zeros((target, source))
    for row in range(target):
        centre = (row + 0.5) * scale
        distance = (np.arange(source) + 0.5 - centre) / width
        matrix[row] = (distance > -0.5) & (distance <= 0.5)
    return matrix / matrix.sum(axis=1, keepdims=True)


def disk_kernel(radius, blur):
    """A disk, smoothed with a Gaussian kernel of 3 x 3 pixels.

    Args:
        radius: Radius in pixels.
        blur: Standard deviation of the Gaussian in pixels.

    Returns:
        NumPy array `[k, k]` with odd k; it sums to 1.
    """
    reach = math.floor(radius) + 1
    offsets = np.arange(-reach, reach + 1)
    disk = (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(float)
    taps = np.exp(-0.5 * (np.array([-1, 0, 1]) / blur) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        near = np.roll(disk, 1, axis) + np.roll(disk, -1, axis)
        disk = taps[1] * disk + taps[0] * near
    return disk / disk.sum()
