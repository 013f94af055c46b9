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


def paired_difference(only_first, only_second, n):
    """The 95 % interval of the difference of two shares of the same `n` trials.

    Wald's interval with half a trial added to each of the four outcomes, which is sound for few
    trials and for differences near 0 and 1 as well.

    Args:
        only_first: Number of trials that succeed in the first series alone.
        only_second: Number of those that succeed in the second one alone.
        n: Number of trials, at least 1.

    Returns:
        `(low, high)` of the first share minus the second.

    Reference:
        A. Agresti and Y. Min, Simple improved confidence intervals for comparing matched
        proportions, 2005.

    Example:

    >>> from soar_tf.evaluation.intervals import paired_difference
    >>> [round(end, 3) for end in paired_difference(20, 10, 100)]
    [-0.007, 0.203]
    """
    first, second, trials = only_first + 0.5, only_second + 0.5, n + 2
    center = (first - second) / trials
    spread = Z95 * math.sqrt(first + second - (first - second) ** 2 / trials) / trials
    return max(center - spread, -1.0), min(center + spread, 1.0)
