"""Confidence intervals of shares."""

import math

Z95 = 1.96  # normal quantile of 95 % intervals


def wilson(count, n):
    """The Wilson 95 % interval of a share, which is sound near 0 and 1 as well.

    Args:
        count: How many of `n` it was.
        n: Number of trials, at least 1.

    Returns:
        `(low, high)`.

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    Example:

    >>> from soar_tf.evaluation.intervals import wilson
    >>> [round(end, 3) for end in wilson(50, 100)]
    [0.404, 0.596]
    """
    share = count / n
    center = share + Z95**2 / (2 * n)
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return max((center - spread) / scale, 0.0), min((center + spread) / scale, 1.0)
