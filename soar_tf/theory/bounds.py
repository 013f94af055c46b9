r"""The ladder of bounds in section 4 of the SOAR paper, exact, for low-dimensional inputs.

SOAR's penalty is the last step of a chain of relaxations (Ma et al. 2020, arXiv:2004.01832). For a
loss with gradient $g$ and Hessian $A$ at a point, $q(\delta) = g^\top\delta + \tfrac12
\delta^\top A\,\delta$ is its second-order Taylor growth (eq. 4). Every rung estimates

$$\max_{\|\delta\|_\infty \le \epsilon} q(\delta),$$

where $R = \sqrt d\,\epsilon$ is the radius of the l2 ball around the box (eq. 5), and
$\epsilon'^2 = R^2 + 1$:

| rung | value |
| --- | --- |
| `corners` | largest $q$ over the $2^d$ corners of the box |
| `box` | $\max_{\|\delta\|_\infty \le \epsilon} q$, over all faces of the box |
| `ball` | $\max_{\|\delta\|_2 \le R} q$, the trust-region problem (eq. 5) |
| `separate` | $R\|g\|_2 + \tfrac12 R^2 \sigma_{\max}(A)$, each term maximised separately |
| `eigenvalue` | $\tfrac12\epsilon'^2\lambda_{\max}(\mathbf H) - \tfrac12$ (eq. 6) |
| `spectral` | $\tfrac12\epsilon'^2\|\mathbf H\|_2 - \tfrac12$ (eq. 7) |
| `frobenius` | $\tfrac12\epsilon'^2\|\mathbf H\|_F - \tfrac12$ |
| `mean_norm` | $\tfrac12\epsilon'^2 E\|\mathbf Hz\|_2 - \tfrac12$ (eq. 8, $z$ standard normal) |
| `penalty` | the same without the last component of $\mathbf Hz$ (eq. 11, $h \to 0$) |
| `scaled_mean_norm` | `mean_norm` with $\sqrt{\pi/2}\,E\|\mathbf Hz\|_2$ instead |

`INEQUALITIES` lists which rung is below which. Two steps of the paper do not hold as stated. Eq. 8
has $\|\mathbf H\|_F = E\|\mathbf Hz\|_2$; since the square root is concave, only

$$\sqrt{2/\pi}\,\|\mathbf H\|_F \le E\|\mathbf Hz\|_2 \le \|\mathbf H\|_F$$

is true. The last step therefore goes down, and `mean_norm` and `penalty` are not bounds in general:
for a Hessian of rank one they are below the spectral norm. `scaled_mean_norm` is a bound again. And
`separate` is neither above nor below `eigenvalue`: the paper's unified form can be the looser one.
"""

import itertools
import math

import numpy as np
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.ops import gradients
from soar_tf.ops.curvature import bound_factor

# (lower rung, upper rung): true for every quadratic.
INEQUALITIES = (
    ("corners", "box"),
    ("box", "ball"),
    ("ball", "separate"),
    ("ball", "eigenvalue"),
    ("eigenvalue", "spectral"),
    ("spectral", "frobenius"),
    ("penalty", "mean_norm"),
    ("mean_norm", "frobenius"),
    ("frobenius", "scaled_mean_norm"),
)

# In more dimensions the 2^d corners are too many.
MAX_ENUMERATED = 12


def ladder(gradient, hessian, epsilon):
    """Every rung of the ladder, by name.

    Args:
        gradient: float64 tensor `[B, d]`.
        hessian: float64 tensor `[B, d, d]`, symmetric.
        epsilon: l-infinity radius, in units of the pixel range.

    Returns:
        Dictionary of float64 tensors `[B]`. `corners` and `box` are omitted if d is larger than
        `MAX_ENUMERATED`.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.theory import bounds
    >>> g, a = tf.constant([[3.0, 4.0]], tf.float64), tf.zeros([1, 2, 2], tf.float64)
    >>> rungs = bounds.ladder(g, a, 0.1)  # a linear loss: 0.1 * (3 + 4), then 0.1 * sqrt(2) * 5
    >>> round(float(rungs["box"][0]), 3), round(float(rungs["ball"][0]), 3)
    (0.7, 0.707)
    """
    gradient, hessian = _check_quadratic(gradient, hessian)
    d = gradient.shape[1]
    radius = math.sqrt(d) * epsilon
    matrix = bordered_hessian(gradient, hessian)
    rungs = {}
    if d <= MAX_ENUMERATED:
        rungs["corners"] = corner_maximum(gradient, hessian, epsilon)
        rungs["box"] = box_maximum(gradient, hessian, epsilon)
    rungs["ball"] = ball_maximum(gradient, hessian, radius)
    rungs["separate"] = separate_maxima(gradient, hessian, radius)
    mean_norm = expected_norm(matrix)
    sizes = {
        "eigenvalue": tf.linalg.eigvalsh(matrix)[:, -1],
        "spectral": spectral_norm(matrix),
        "frobenius": tf.linalg.norm(matrix, axis=(1, 2)),
        "mean_norm": mean_norm,
        "penalty": expected_norm(matrix[:, :d]),
        "scaled_mean_norm": math.sqrt(math.pi / 2) * mean_norm,
    }
    factor = bound_factor(d, epsilon)
    return rungs | {name: factor * size - 0.5 for name, size in sizes.items()}


def quadratic_model(values_fn, x):
    """A loss's value, gradient and exact Hessian at each example, for `ladder`.

    Args:
        values_fn: Per-example loss, callable `[B, ...] -> [B]`; float64 for exact results.
        x: float tensor `[B, ...]`.

    Returns:
        `(values [B], gradient [B, d], hessian [B, d, d])`, the Hessian symmetrised.
    """
    values, gradient = gradients.input_gradient(values_fn, x)
    hessian = gradients.hessian(values_fn, x)
    flat = tf.reshape(gradient, [-1, math.prod(x.shape[1:])])
    return values, flat, 0.5 * (hessian + tf.linalg.matrix_transpose(hessian))


def bordered_hessian(gradient, hessian):
    r"""The matrix of eq. 6, $\mathbf H = \begin{bmatrix} A & g \\ g^\top & 1 \end{bmatrix}$."""
    one = tf.ones([tf.shape(gradient)[0], 1], gradient.dtype)
    bottom = tf.concat([gradient, one], axis=1)
    return tf.concat([tf.concat([hessian, gradient[:, :, None]], axis=2), bottom[:, None]], axis=1)


def corner_maximum(gradient, hessian, epsilon):
    """The largest value of the quadratic over the corners of the box, `[B]`.

    This is the maximum over the box if no diagonal entry of the Hessian is negative, as for the
    cross-entropy of a piecewise linear network.

    Args:
        gradient: float64 tensor `[B, d]`.
        hessian: float64 tensor `[B, d, d]`.
        epsilon: Half the side length of the box.

    Raises:
        InputError: If d is larger than `MAX_ENUMERATED`.
    """
    gradient, hessian = _check_quadratic(gradient, hessian)
    corners = epsilon * _signs(_check_enumerable(gradient.shape[1]))
    return tf.reduce_max(_quadratic(gradient, hessian, corners[None]), axis=1)


def box_maximum(gradient, hessian, epsilon):
    """The exact inner maximum: the largest value of the quadratic in the box, `[B]`.

    The maximum is at a corner, or at the stationary point of a face on whose free coordinates the
    Hessian is negative definite. All faces are tried.

    Args, Raises: as `corner_maximum`.
    """
    gradient, hessian = _check_quadratic(gradient, hessian)
    d = gradient.shape[1]
    best = corner_maximum(gradient, hessian, epsilon)
    concave = np.flatnonzero((tf.linalg.diag_part(hessian).numpy() < 0).any(axis=0))
    for size in range(1, len(concave) + 1):
        for free in itertools.combinations(concave, size):
            best = tf.maximum(best, _face_maximum(gradient, hessian, epsilon, list(free), d))
    return best


def _face_maximum(gradient, hessian, epsilon, free, d):
    """The largest stationary value over all faces with these free coordinates; -inf if none."""
    fixed = np.array([i for i in range(d) if i not in free], int)
    rows = tf.gather(hessian, free, axis=1)
    block = tf.gather(rows, free, axis=2)
    definite = tf.linalg.eigvalsh(block)[:, -1] < 0
    block = tf.where(definite[:, None, None], block, -tf.eye(len(free), dtype=block.dtype))
    corners = epsilon * _signs(len(fixed))
    slope = tf.gather(gradient, free, axis=1)[:, :, None] + tf.matmul(
        tf.gather(rows, fixed, axis=2), corners, transpose_b=True
    )
    inner = tf.linalg.matrix_transpose(-tf.linalg.solve(block, slope))
    outer = tf.broadcast_to(corners[None], [tf.shape(inner)[0], *corners.shape])
    delta = tf.gather(tf.concat([inner, outer], axis=2), np.argsort([*free, *fixed]), axis=2)
    inside = definite[:, None] & (tf.reduce_max(tf.abs(inner), axis=2) <= epsilon)
    none = tf.constant(-math.inf, gradient.dtype)
    return tf.reduce_max(tf.where(inside, _quadratic(gradient, hessian, delta), none), axis=1)


def ball_maximum(gradient, hessian, radius):
    r"""The largest value of the quadratic in an l2 ball: the trust-region problem of eq. 5, `[B]`.

    The problem is not convex but has no duality gap: with the eigenvalues $\lambda_i$ and the
    gradient's components $c_i$ along the eigenvectors, the maximum is

    $$\min_{\mu \ge \max(0, \lambda_{\max})} \tfrac12 \sum_i \frac{c_i^2}{\mu - \lambda_i}
    + \tfrac12 \mu R^2,$$

    a convex function of one variable, minimised by bisection of its derivative (Conn, Gould and
    Toint, Trust-Region Methods, 2000, section 7.2).

    Args:
        gradient: float64 tensor `[B, d]`.
        hessian: float64 tensor `[B, d, d]`.
        radius: R, the radius of the ball.
    """
    gradient, hessian = _check_quadratic(gradient, hessian)
    values, vectors = tf.linalg.eigh(hessian)
    square = tf.linalg.matvec(vectors, gradient, transpose_a=True) ** 2
    start = tf.maximum(values[:, -1:], 0)
    # mu = start + t: a separate t loses no digits where mu comes close to an eigenvalue.
    gap = start - values
    low = tf.zeros_like(start)
    high = tf.math.divide_no_nan(tf.linalg.norm(gradient, axis=1, keepdims=True), radius * 1.0)
    for _ in range(200):
        t = 0.5 * (low + high)
        length = tf.reduce_sum(tf.math.divide_no_nan(square, (gap + t) ** 2), 1, keepdims=True)
        too_long = length > radius**2
        low, high = tf.where(too_long, t, low), tf.where(too_long, high, t)
    dual = tf.reduce_sum(tf.math.divide_no_nan(square, gap + high), axis=1)
    return 0.5 * (dual + (start + high)[:, 0] * radius**2)


def separate_maxima(gradient, hessian, radius):
    r"""$R\|g\|_2 + \tfrac12 R^2\sigma_{\max}(A)$: the two terms maximised separately, `[B]`."""
    return radius * tf.linalg.norm(gradient, axis=1) + 0.5 * radius**2 * spectral_norm(hessian)


def spectral_norm(matrix):
    """The largest singular value, `[B, m, n] -> [B]`."""
    return tf.linalg.svd(matrix, compute_uv=False)[:, 0]


def expected_norm(matrix):
    r"""$E\|Mz\|_2$ for standard normal z, to about 13 digits, `[B, m, n] -> [B]`.

    With singular values $\sigma_i$, $\|Mz\|_2^2$ has the Laplace transform $\prod_i (1 + 2t
    \sigma_i^2)^{-1/2}$, and $E\sqrt Q = \frac{1}{\sqrt\pi}\int_0^\infty (1 - E e^{-s^2 Q}) s^{-2}
    ds$. In $u = \log s$ the integrand decays exponentially on both sides and is analytic in a
    strip, so the trapezoidal rule converges exponentially.

    Args:
        matrix: float64 tensor `[B, m, n]`.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.theory import bounds
    >>> round(float(bounds.expected_norm(tf.ones([1, 1, 1], tf.float64))[0]) ** 2, 6)  # 2 / pi
    0.63662
    """
    square = tf.linalg.svd(matrix, compute_uv=False) ** 2
    total = tf.reduce_sum(square, axis=1)
    share = tf.math.divide_no_nan(square, total[:, None])
    step = 0.125
    u = tf.constant(np.arange(-40, 40 + step, step), square.dtype)
    logarithm = tf.math.log1p(2.0 * tf.exp(2.0 * u)[None, :, None] * share[:, None, :])
    integrand = -tf.math.expm1(-0.5 * tf.reduce_sum(logarithm, axis=2)) * tf.exp(-u)
    return tf.sqrt(total / math.pi) * step * tf.reduce_sum(integrand, axis=1)


def _quadratic(gradient, hessian, delta):
    """The values of q, `[B, S]`, at points `[B or 1, S, d]`."""
    batch = tf.shape(gradient)[0]
    delta = tf.broadcast_to(delta, [batch, *delta.shape[1:]])
    image = gradient[:, None] + 0.5 * tf.matmul(delta, hessian)
    return tf.reduce_sum(delta * image, axis=2)


def _signs(count):
    """All vectors of `count` signs, float64 `[2^count, count]`."""
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=count)))
    return tf.constant(signs.reshape(2**count, count), tf.float64)


def _check_enumerable(d):
    if d > MAX_ENUMERATED:
        raise InputError(
            f"`gradient` must have at most {MAX_ENUMERATED} coordinates, since all 2^d corners are "
            f"tried. Received: {d}."
        )
    return d


def _check_quadratic(gradient, hessian):
    gradient, hessian = tf.cast(gradient, tf.float64), tf.cast(hessian, tf.float64)
    if gradient.shape.rank != 2 or hessian.shape != [*gradient.shape, gradient.shape[1]]:
        raise InputError(
            "`gradient` must be [B, d] and `hessian` [B, d, d]. "
            f"Received: shapes {gradient.shape} and {hessian.shape}."
        )
    return gradient, hessian
