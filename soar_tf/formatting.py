"""Figures as people write them."""


def percent(share):
    """A share as a percentage with one decimal; `-` for one that is not known (`None`)."""
    return "-" if share is None else f"{100 * share:.1f} %"


def radius_text(value):
    """A radius as people write it: `8/255` where it is a multiple of 1/255, else decimals.

    Example:

    >>> from soar_tf.formatting import radius_text
    >>> radius_text(8 / 255), radius_text(0.15), radius_text(0)
    ('8/255', '0.15', '0')
    """
    if value == 0:
        return "0"
    if value < 0.5 and abs(value * 255 - round(value * 255)) < 1e-6:
        return f"{round(value * 255)}/255"
    return f"{value:.4g}"


def threat_text(norm, epsilon):
    """A threat model such as `Linf 8/255`; transformations, which have none, give `-`."""
    return f"{norm.capitalize()} {radius_text(epsilon)}" if norm else "-"


def rate_text(per_second):
    """A number per second as people say it: `120`, `3.4`, `0.02`; `-` for one that is not known.

    Example:

    >>> from soar_tf.formatting import rate_text
    >>> rate_text(1234.5), rate_text(3.42), rate_text(0.0213), rate_text(0.0)
    ('1234', '3.4', '0.021', '-')
    """
    if not per_second:
        return "-"
    return f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.2g}"


def duration_text(seconds):
    """A duration as people say it: `45 s`, `12 min`, `3 h 5 min`.

    Example:

    >>> from soar_tf.formatting import duration_text
    >>> duration_text(44.6), duration_text(725), duration_text(11100)
    ('45 s', '12 min', '3 h 5 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 100 else f"{minutes} min"
