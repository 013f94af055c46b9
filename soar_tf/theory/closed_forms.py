r"""Sections 2 and 4.1 of the SOAR paper in closed form, to read and experiment with.

Section 2 is a linear regression with more weights than the data can determine. With $x = (x_1, 0,
\dots, 0)$ and the loss $l(x; w) = \tfrac12 \langle x, w - w^*\rangle^2$, gradient descent never
changes $w_2, \dots, w_d$; an adversary moves the input along exactly these coordinates. Section 4.1
is the logistic classifier, for which every quantity of section 4 has a closed form.

Everything is NumPy in float64. Two formulas are misprinted in the paper and corrected here
(`ridge_solution`, `robustified_loss`). Reference: Ma, Faghri and Farahmand 2020, arXiv:2004.01832.
docs/theory.md gives the derivation.
"""

import math

import numpy as np

from soar_tf.errors import InputError
from soar_tf.validation import check_integer, check_number


def gradient_descent(x, w_start, w_star, *, learning_rate=0.1, steps=200):
    r"""Gradient descent on the mean squared loss of section 2.

    $$w \leftarrow w - \beta \nabla L(w), \qquad
    \nabla L(w) = \frac1n \sum_i x_i \langle x_i, w - w^* \rangle$$

    Every step adds a combination of the data; the component orthogonal to all data never changes.

    Args:
        x: float `[n, d]`, the inputs.
        w_start: float `[d]`, the initial weights.
        w_star: float `[d]`, the true weights.
        learning_rate: $\beta$.
        steps: Number of steps.

    Returns:
        float64 `[d]`, the final weights.

    Example:

    >>> import numpy as np
    >>> from soar_tf import theory
    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> theory.gradient_descent(x, [0.3, 0.7], [1.0, 0.0]).round(6).tolist()
    [1.0, 0.7]
    """
    learning_rate = check_number(learning_rate, "learning_rate", minimum=0.0, exclusive=True)
    x, w, w_star = (np.asarray(a, np.float64) for a in (x, w_start, w_star))
    for _ in range(check_integer(steps, "steps", minimum=0)):
        w = w - learning_rate * (x.T @ (x @ (w - w_star))) / len(x)
    return w


def squared_loss(x, w, w_star):
    r"""$l(x; w) = \tfrac12 \langle x, w - w^*\rangle^2$ of each input, `[n, d] -> [n]`."""
    residual = np.asarray(x, np.float64) @ (np.asarray(w, np.float64) - w_star)
    return 0.5 * residual**2


def irrelevant_attack(w, epsilon):
    r"""The FGSM-like attack of section 2: $\Delta x = (0, \epsilon\,\mathrm{sign}\,w_2, \dots)$.

    Args:
        w: float `[d]`, the learned weights.
        epsilon: l-infinity radius.

    Returns:
        float64 `[d]`, the perturbation to add to any input.
    """
    change = epsilon * np.sign(np.asarray(w, np.float64))
    change[0] = 0.0
    return change


def expected_attacked_loss(dimension, epsilon, sigma):
    r"""The exact mean attacked loss of the solution that gradient descent finds.

    For $w(0) \sim \mathcal N(0, \sigma^2 I)$ and $m = d - 1$ irrelevant weights,

    $$\tfrac12\epsilon^2 E\Big[\Big(\sum_{j \ge 2} |w_j(0)|\Big)^2\Big] = \tfrac12\epsilon^2\sigma^2
    \Big(m + m(m-1)\tfrac2\pi\Big) = O(\epsilon^2 d^2 \sigma^2).$$

    The paper counts all d weights, which makes no difference for large d.

    Args:
        dimension: d, at least 1.
        epsilon: l-infinity radius.
        sigma: Standard deviation of the initial weights.

    Example:

    >>> from soar_tf import theory
    >>> theory.expected_attacked_loss(2, 0.1, 1.0)  # one irrelevant weight: 0.01 E[w^2] / 2
    0.005000000000000001
    """
    m = check_integer(dimension, "dimension", minimum=1) - 1
    return 0.5 * epsilon**2 * sigma**2 * (m + m * (m - 1) * 2 / math.pi)


def ridge_solution(x, w_star, ridge):
    r"""The weights that minimise the ridge loss $L(w) + \tfrac\lambda2\|w\|_2^2$.

    For data on the first axis, with $\mu = E[X_1^2]$:

    $$\bar w_1 = \frac{\mu}{\mu + \lambda} w_1^*, \qquad \bar w_j = 0 \text{ for } j \ne 1.$$

    The paper prints $\mu_1 = E[X_1]$ here and in the gradient of $L$, but the derivative of
    $\tfrac12 E[(w_1 - w_1^*)^2 X_1^2]$ has the second moment. (With the mean, data centred at zero
    could not be learned at all.)

    Args:
        x: float `[n, d]`, inputs that are zero except in the first coordinate.
        w_star: float `[d]`, the true weights.
        ridge: $\lambda > 0$.

    Returns:
        float64 `[d]`.

    Raises:
        InputError: If the data are not on the first axis, or $\lambda$ is not positive.

    Example:

    >>> from soar_tf import theory
    >>> theory.ridge_solution([[1.0, 0.0], [-1.0, 0.0]], [1.0, 0.0], 1.0).tolist()
    [0.5, 0.0]
    """
    ridge = check_number(ridge, "ridge", minimum=0.0, exclusive=True)
    x = _check_on_first_axis(x)
    moment = np.mean(x[:, 0] ** 2)
    solution = np.zeros(x.shape[1])
    solution[0] = moment / (moment + ridge) * np.asarray(w_star, np.float64)[0]
    return solution


def robustified_loss(x, w, w_star, epsilon):
    r"""Equation 2: the mean loss under the attack of section 2, in closed form.

    $$L_{\text{robustified}}(w) = L(w) + \tfrac12\epsilon^2\|w_{2:d}\|_1^2
    + \epsilon E[r(X; w)] \|w_{2:d}\|_1$$

    with the residual $r(x; w) = \langle x, w - w^*\rangle$. The paper's second term lacks the
    factor of one half.

    Args:
        x: float `[n, d]`, inputs that are zero except in the first coordinate.
        w: float `[d]`, the weights.
        w_star: float `[d]`, the true weights: zero except for the first.
        epsilon: l-infinity radius.

    Raises:
        InputError: If the data are not on the first axis.

    Example:

    >>> from soar_tf import theory
    >>> theory.robustified_loss([[1.0, 0.0]], [2.0, 2.0], [1.0, 0.0], 0.5)  # (1 + 1)^2 / 2
    2.0
    """
    x, w = _check_on_first_axis(x), np.asarray(w, np.float64)
    w_star = np.asarray(w_star, np.float64)
    size = np.abs(w[1:]).sum()
    residual = np.mean(x @ (w - w_star))
    loss = np.mean(squared_loss(x, w, w_star))
    return float(loss + 0.5 * epsilon**2 * size**2 + epsilon * residual * size)


def _check_on_first_axis(x):
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or x[:, 1:].any():
        raise InputError(
            "`x` must be [n, d] and zero except in its first coordinate. "
            f"Received: an array of shape {x.shape}."
        )
    return x


def logistic_loss(x, y, w):
    r"""Cross-entropy of the classifier $f(x; w) = \phi(\langle w, x\rangle)$, `[n, d] -> [n]`.

    Args:
        x: float `[n, d]`.
        y: Labels 0 and 1, `[n]`.
        w: float `[d]`.
    """
    logit = np.asarray(x, np.float64) @ w
    return np.logaddexp(0.0, logit) - np.asarray(y) * logit


def logistic_terms(x, y, w):
    r"""The residual r and uncertainty u of section 4.1.

    $$r = f(x; w) - y, \qquad u = f(x; w)(1 - f(x; w)), \qquad \nabla\ell = r w, \qquad
    \nabla^2\ell = u\, w w^\top$$

    Args: as `logistic_loss`.

    Returns:
        `(r, u)`, each float64 `[n]`, to full relative precision even where f is close to y.

    Example:

    >>> from soar_tf import theory
    >>> r, u = theory.logistic_terms([[0.0]], [1], [1.0])
    >>> float(r[0]), float(u[0])
    (-0.5, 0.25)
    """
    y = np.asarray(y, np.float64)
    # The probability of the wrong class: 1 - f loses all digits where f rounds to 1.
    wrong = _sigmoid((1 - 2 * y) * (np.asarray(x, np.float64) @ w))
    return (1 - 2 * y) * wrong, wrong * _sigmoid((2 * y - 1) * (np.asarray(x) @ w))


def logistic_bound(x, y, w, epsilon):
    r"""How much the Taylor expansion of a logistic loss can grow in the l2 ball of eq. 5.

    $$\max_{\|\delta\|_2 \le \sqrt d \epsilon} q(\delta) = \epsilon\sqrt d\, |r| \|w\|_2
    + \frac{d\epsilon^2}{2} u \|w\|_2^2$$

    The gradient and the curvature point along one line, so the separate maxima are attained
    together.

    Args:
        x, y, w: As `logistic_loss`.
        epsilon: l-infinity radius.

    Returns:
        float64 `[n]`.

    Reference: the equation after eq. 10.
    """
    r, u = logistic_terms(x, y, w)
    radius, size = math.sqrt(len(w)) * epsilon, np.linalg.norm(w)
    return radius * np.abs(r) * size + 0.5 * radius**2 * u * size**2


def logistic_penalty(x, y, w, epsilon):
    r"""SOAR's penalty (eq. 11) of a logistic loss: its mean over z, for $h \to 0$.

    $\nabla^2\ell\, z_d + z_1\nabla\ell = (u\, w^\top z_d + r z_1)\, w$ depends on a single normal
    variable:

    $$E[R] = \frac{d\epsilon^2 + 1}{2} \sqrt{\tfrac2\pi}\; \|w\|_2 \sqrt{u^2\|w\|_2^2 + r^2}$$

    Both r and u vanish as the classifier becomes confident in the correct label, and the penalty
    with them: it stops regularizing (section 4.1), even though $\|w\|$ has grown.

    Args:
        x, y, w: As `logistic_loss`.
        epsilon: l-infinity radius.

    Returns:
        float64 `[n]`.

    Example:

    >>> from soar_tf import theory
    >>> penalties = [theory.logistic_penalty([[1.0]], [1], [w], 0.1)[0] for w in (1, 5, 25)]
    >>> [round(float(value), 6) for value in penalties]
    [0.134235, 0.068312, 0.0]
    """
    r, u = logistic_terms(x, y, w)
    size = np.linalg.norm(w)
    norm = math.sqrt(2 / math.pi) * size * np.sqrt(u**2 * size**2 + r**2)
    return 0.5 * (len(w) * epsilon**2 + 1) * norm


def _sigmoid(value):
    return np.exp(-np.logaddexp(0.0, -value))
