r"""SOAR's curvature penalty (Ma, Faghri and Farahmand 2020, arXiv:2004.01832, section 4).

For a loss $\ell$ and the bordered Hessian

$$\mathbf{H} = \begin{bmatrix} \nabla^2\ell & \nabla\ell \\ \nabla\ell^\top & 1 \end{bmatrix},$$

the inner maximum of the robust objective is at most $\tfrac12 \epsilon'^2 \|\mathbf{H}\|_F$, with
$\epsilon'^2 = d\epsilon^2 + 1$. The Frobenius norm is estimated with random directions $z$, and
$\nabla^2\ell\, z$ by a finite difference. Gradients are those of the per-example loss: the penalty
of an example does not depend on the rest of its batch.
"""

import math

import tensorflow as tf

from soar_tf.ops import gradients, norms, random
from soar_tf.validation import check_choice

ESTIMATORS = ("mean_norm", "root_mean_square")
HVPS = ("finite_difference", "exact")
CLIP_SCOPES = ("example", "batch")
# How the gradient's change is measured: by the vector of eq. 11, or alone and scale-free.
MEASURES = ("absolute", "relative", "cosine")

# With smaller steps, a float32 finite difference is mostly rounding noise.
MINIMUM_STEP = 1e-3


def bound_factor(dimension, epsilon, norm="linf"):
    r"""Half of $\epsilon'^2$, the factor of the norm in eq. 11.

    An l-infinity ball of radius $\epsilon$ lies in an l2 ball of radius $\sqrt{d}\,\epsilon$
    (eq. 5), hence $(d\epsilon^2 + 1)/2$; for an l2 threat model it is $(\epsilon^2 + 1)/2$.

    Args:
        dimension: d, the number of input coordinates of one example.
        epsilon: Radius of the ball, in units of the pixel range.
        norm: `"linf"` or `"l2"`.

    Returns:
        The factor, a float (or a tensor if `epsilon` is one).

    Example:

    >>> from soar_tf.ops.curvature import bound_factor
    >>> round(bound_factor(3 * 32 * 32, 8 / 255), 3)
    2.012
    """
    check_choice(norm, "norm", ("linf", "l2"))
    return ((dimension if norm == "linf" else 1) * epsilon**2 + 1) / 2


def ball_radius(dimension, epsilon, norm="linf"):
    r"""The radius of the smallest l2 ball around a threat model's ball (eq. 5).

    Args:
        dimension: d, the number of input coordinates of one example.
        epsilon: Radius of the ball, in units of the pixel range.
        norm: `"linf"` (the radius is $\sqrt{d}\,\epsilon$) or `"l2"` (it is $\epsilon$).

    Returns:
        The radius, a float (or a tensor if `epsilon` is one).

    Example:

    >>> from soar_tf.ops.curvature import ball_radius
    >>> round(ball_radius(3 * 32 * 32, 8 / 255), 2)
    1.74
    """
    check_choice(norm, "norm", ("linf", "l2"))
    return (math.sqrt(dimension) if norm == "linf" else 1.0) * epsilon


def curvature_norm(
    values_fn,
    x,
    gradient,
    keys,
    *,
    alpha=0.03,
    h_min=MINIMUM_STEP,
    num_directions=1,
    hvp="finite_difference",
    estimator="mean_norm",
    full_vector=False,
    measure="absolute",
):
    r"""Estimates $\|\mathbf{H}\|_F$ per example, the norm in eq. 11.

    For each direction $z = (z_d, z_1) \sim \mathcal{N}(0, I_{d+1})$ and step $h \sim U(0, \alpha)$,
    with $\tilde z = z_d / \|z_d\|_2$, the norm of

    $$\|z_d\|_2 \frac{\nabla\ell(x + h\tilde z) - \nabla\ell(x)}{h} + z_1 \nabla\ell(x).$$

    Args:
        values_fn: Per-example loss, callable `[B, ...] -> [B]`.
        x: float tensor `[B, ...]`, the expansion point.
        gradient: float tensor `[B, ...]`, the loss's gradient at `x`.
        keys: uint32 tensor `[B, 2]`, from which z and h are drawn.
        alpha: Largest step h, an l2 distance in units of the pixel range.
        h_min: Smallest step: smaller draws are raised to it.
        num_directions: Number m of directions z.
        hvp: `"finite_difference"` (eq. 9) or `"exact"`, which does not use h.
        estimator: `"mean_norm"`, the paper's $E\|\mathbf{H}z\|_2$, a lower bound of the Frobenius
            norm (its eq. 8 claims equality); or `"root_mean_square"`,
            $\sqrt{E\|\mathbf{H}z\|_2^2}$, which equals the Frobenius norm.
        full_vector: Whether to include the last component of $\mathbf{H}z$,
            $\nabla\ell^\top z_d + z_1$, which eq. 11 leaves out.
        measure: What is measured along a direction: `"absolute"`, the norm above, or a measure of
            `gradient_change`, for which `hvp` and `full_vector` have no meaning.

    Returns:
        float tensor `[B]`.
    """
    check_choice(measure, "measure", MEASURES)
    check_choice(estimator, "estimator", ESTIMATORS)
    total = 0.0
    for direction in range(num_directions):
        derived = random.derive(keys, direction)
        steps = {"alpha": alpha, "h_min": h_min}
        if measure == "absolute":
            size = direction_norm(
                values_fn, x, gradient, derived, hvp=hvp, full_vector=full_vector, **steps
            )
        else:
            size = gradient_change(values_fn, x, gradient, derived, measure=measure, **steps)
        total += tf.square(size) if estimator == "root_mean_square" else size
    mean = total / num_directions
    return tf.sqrt(mean + 1e-30) if estimator == "root_mean_square" else mean


def direction_norm(
    values_fn,
    x,
    gradient,
    keys,
    *,
    alpha=0.03,
    h_min=MINIMUM_STEP,
    hvp="finite_difference",
    full_vector=False,
):
    r"""$\|\mathbf{H}z\|_2$ per example for one random direction z; see `curvature_norm`.

    Args:
        values_fn: Per-example loss, callable `[B, ...] -> [B]`.
        x: float tensor `[B, ...]`, the expansion point.
        gradient: float tensor `[B, ...]`, the loss's gradient at `x`.
        keys: uint32 tensor `[B, 2]`, from which this direction and its h are drawn. Direction i of
            `curvature_norm` has the keys `random.derive(keys, i)`.
        alpha: Largest step h, an l2 distance in units of the pixel range.
        h_min: Smallest step.
        hvp: `"finite_difference"` (eq. 9) or `"exact"`.
        full_vector: Whether to include the last component of $\mathbf{H}z$.

    Returns:
        float tensor `[B]`.
    """
    check_choice(hvp, "hvp", HVPS)
    z = random.normal(keys, x.shape[1:])
    z_last = random.normal(random.derive(keys, "z_1"), ())
    length = norms.norm(z, "l2")
    if hvp == "exact":
        product = gradients.hvp_exact(values_fn, x, z)
    else:
        h = _step(keys, alpha, h_min)
        unit = z / norms.per_example(length, z)
        product = gradients.hvp_finite_difference(values_fn, x, unit, h, gradient=gradient)
        product *= norms.per_example(length, z)
    vector = product + norms.per_example(z_last, x) * gradient
    size = norms.norm(vector, "l2")
    if full_vector:
        last = tf.reduce_sum(norms.flatten(gradient * z), axis=1) + z_last
        size = norms.norm(tf.stack([size, last], axis=1), "l2")
    return size


def gradient_change(values_fn, x, gradient, keys, *, alpha, h_min=MINIMUM_STEP, measure="relative"):
    r"""How much the loss's gradient changes along a random step, regardless of its magnitude.

    With $\tilde z$ uniform on the unit sphere and $h \sim U(0, \alpha)$, drawn as in
    `direction_norm`, and $g' = \nabla\ell(x + h\tilde z)$, $g = \nabla\ell(x)$, the change is

    $$\frac{\|g' - g\|_2}{\|g\|_2} \quad (\texttt{"relative"}) \qquad\text{or}\qquad
    1 - \cos(g', g) \quad (\texttt{"cosine"}).$$

    Both are invariant to a constant factor of the loss, so a network cannot lower them by shrinking
    its gradients. Gradients flow through both points. The change is not divided by h, so small
    steps are not swamped by rounding.

    Args:
        values_fn: Per-example loss, callable `[B, ...] -> [B]`.
        x: float tensor `[B, ...]`.
        gradient: float tensor `[B, ...]`, the loss's gradient at `x`.
        keys: uint32 tensor `[B, 2]`, from which this direction and its h are drawn.
        alpha: Largest step h, an l2 distance in units of the pixel range.
        h_min: Smallest step.
        measure: `"relative"` or `"cosine"`.

    Returns:
        float tensor `[B]`: at least 0, and at most 2 for `"cosine"`; 0, with zero gradient, where
        the gradient at `x` vanishes, and for `"cosine"` also where the other one does.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import curvature, random
    >>> x, keys = tf.constant([[3.0, 4.0]]), random.example_keys(0, [0], purpose="example")
    >>> square = lambda x: tf.reduce_sum(x**2, axis=1)  # its gradient, 2 x, moves by 2 h
    >>> change = curvature.gradient_change(square, x, 2 * x, keys, alpha=0.5, h_min=0.5)
    >>> round(float(change[0]), 4)
    0.1
    """
    check_choice(measure, "measure", MEASURES[1:])
    z = random.normal(keys, x.shape[1:])
    h = _step(keys, alpha, h_min)
    moved = x + norms.per_example(h / norms.norm(z, "l2"), z) * z
    _, change = gradients.input_gradient(values_fn, moved)
    if measure == "cosine":
        return 1.0 - norms.cosine(gradient, change)
    return norms.relative_change(gradient, change)


def _step(keys, alpha, h_min):
    """The step h of each example, `[B]`."""
    return tf.maximum(random.uniform(random.derive(keys, "h"), (), 0.0, alpha), h_min)


def clip_norm(size, maximum, scope="example"):
    """Clips the norms to at most `maximum`.

    Args:
        size: float tensor `[B]`, each example's norm.
        maximum: The largest value, or `None` for no clipping.
        scope: `"example"` clips each norm to `maximum`, so clipped examples have no gradient;
            `"batch"` scales all norms, by a factor that is not differentiated, so that their mean
            is at most `maximum`. (Clipping the mean itself would leave no gradient at all.)

    Returns:
        float tensor `[B]`.
    """
    check_choice(scope, "scope", CLIP_SCOPES)
    if maximum is None:
        return size
    if scope == "example":
        return tf.minimum(size, maximum)
    mean = tf.reduce_mean(size)
    return size * tf.stop_gradient(maximum / tf.maximum(mean, maximum))
