"""Checks of arguments, with the wording that every check shares; see `soar_tf.errors`."""

import contextlib
import contextvars
import math
import re
from collections.abc import Iterable
from fractions import Fraction

from soar_tf.errors import InputError, unknown

# The policies that a network can be trained in.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

_TENSORS = contextvars.ContextVar("tensors", default=False)


@contextlib.contextmanager
def tensors_as_numbers():
    """Context in which scalar tensors pass for numbers: a schedule's, checked when it was made."""
    token = _TENSORS.set(True)
    try:
        yield
    finally:
        _TENSORS.reset(token)


def _is_tensor(value):
    return _TENSORS.get() and hasattr(value, "dtype")


def parse_number(value: object, argument: str) -> float:
    """Reads a finite number; fractions such as `"8/255"` are accepted.

    Args:
        value: An int, a float or a string such as `"0.03"` or `"8/255"`.
        argument: The argument's name, for the error.

    Returns:
        The number as a float.

    Raises:
        InputError: If `value` is not a finite number.

    Example:

    >>> from soar_tf.validation import parse_number
    >>> round(parse_number("8/255", "epsilon"), 6)
    0.031373
    """
    if _is_tensor(value):
        return value  # type: ignore[return-value] # a schedule's value inside a graph
    try:
        number = _fraction(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(
            f"`{argument}` must be a finite number, or a fraction such as '8/255'. "
            f"Received: {value!r}."
        )
    return number


# Fraction("1e999999999") would write out a billion digits.
_NUMBER = re.compile(r"[-+]?[\d.]{1,40}(e[-+]?\d{1,3})?(/\d{1,40})?", re.ASCII | re.IGNORECASE)


def _fraction(text):
    text = text.replace(" ", "")
    return float(Fraction(text)) if _NUMBER.fullmatch(text) else math.nan


def check_number(
    value: object,
    argument: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    exclusive: bool = False,
    hint: str = "",
) -> float:
    """Reads a number (as `parse_number`) and checks its range.

    Args:
        value: The number as it came.
        argument: The argument's name, for the error.
        minimum: Smallest allowed value, or `None`.
        maximum: Largest allowed value, or `None`.
        exclusive: Whether `minimum` itself is refused.
        hint: A sentence added to the error.

    Returns:
        The number as a float.

    Raises:
        InputError: If it is no finite number or lies outside the range.
    """
    number = parse_number(value, argument)
    if _is_tensor(number) or _is_tensor(maximum):
        return number
    too_small = minimum is not None and (number < minimum or (exclusive and number == minimum))
    if too_small or (maximum is not None and number > maximum):
        bounds = []
        if minimum is not None:
            bounds.append(f"{'>' if exclusive else '>='} {minimum:.12g}")
        if maximum is not None:
            bounds.append(f"<= {maximum:.12g}")
        tail = f" {hint}" if hint else ""
        raise InputError(f"`{argument}` must be {' and '.join(bounds)}. Received: {value!r}.{tail}")
    return number


LARGEST_COUNT = 2**31 - 1
"""What counts may be at most: TensorFlow's loops count in 32 bits, and beyond would do nothing."""

LARGEST_INTEGER = 2**63 - 1
"""What seeds and sizes in bytes may be at most: TensorFlow's integers have 64 bits."""


def check_integer(
    value: object, argument: str, *, minimum: int | None = None, maximum: int = LARGEST_COUNT
) -> int:
    """Reads an integer (strings such as `"20"` are accepted) and checks its range."""
    if _is_tensor(value):
        raise InputError(f"`{argument}` must be an integer, which no schedule can change.")
    number = parse_number(value, argument)
    if number != int(number):
        raise InputError(f"`{argument}` must be an integer. Received: {value!r}.")
    check_number(value, argument, minimum=minimum)
    # Through a float, integers above 2^53 would lose digits.
    exact = int(number)
    if isinstance(value, int):
        exact = int(value)
    elif str(value).isdecimal():
        exact = int(str(value))
    if abs(exact) > maximum:
        raise InputError(f"`{argument}` must be at most {maximum}. Received: {value!r}.")
    return exact


def check_seed(value: object, argument: str = "seed") -> int:
    """Reads the seed of noise, an integer from 0 to `LARGEST_INTEGER`."""
    return check_integer(value, argument, minimum=0, maximum=LARGEST_INTEGER)


def each_key_once(pairs: Iterable[tuple[str, str]], received: object) -> dict[str, str]:
    """A dictionary of pairs of key and value; a key that comes twice is refused.

    Args:
        pairs: The pairs.
        received: What they were read from, for the error.

    Raises:
        InputError: If a key comes twice.
    """
    values: dict[str, str] = {}
    for key, value in pairs:
        if key in values:
            raise InputError(f"`{key}` must be given once. Received: {received!r}.")
        values[key] = value
    return values


def check_choice(value: object, argument: str, choices: Iterable[str]) -> str:
    """Checks that `value` is one of `choices`; the error names the nearest match."""
    if value not in (names := list(choices)):
        raise unknown(f"`{argument}`", value, names)
    return value


def check_boolean(value: object, argument: str) -> bool:
    """Reads a boolean; the strings `"true"` and `"false"` are accepted (for `--method-arg`)."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise InputError(f"`{argument}` must be true or false. Received: {value!r}.")


# The smallest radius that can be meant, as a share of the pixel range: a quarter of 1/255 is above
# it, a radius that was divided by 255 once too often below. With a range other than 1 the mistake
# is a radius for [0, 1], and the usual ones of l2 and l1 are larger than those of l-infinity.
_LEAST_RADIUS = 1 / 1024
_LEAST_RADIUS_OF_OTHER_RANGES = {"linf": 1 / 1024, "l2": 1 / 100, "l1": 1 / 20}


def check_epsilon(
    value: object,
    argument: str = "epsilon",
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> float:
    """Reads a perturbation radius: a distance between images with pixels in `bounds`.

    Radii that cannot be meant are refused: an l-infinity radius larger than the pixel range, which
    is one for 0-255 pixels, and one far below a grey level, which was divided by 255 too often or
    is for pixels in [0, 1] where `bounds` are others.
    """
    if _is_tensor(value):
        return value  # type: ignore[return-value] # a schedule's value inside a graph
    low, high = bounds
    span = high - low
    number = parse_number(value, argument)
    maximum = span if norm == "linf" else None
    hint = ""
    if maximum is not None and number > maximum:
        hint = f"Pixels lie in [{low:g}, {high:g}]."
        if span == 1.0:
            hint = f"Pixels lie in [0, 1]: write {number:g}/255 for 0-255."
    share = _LEAST_RADIUS if span == 1.0 else _LEAST_RADIUS_OF_OTHER_RANGES[norm]
    if 0.0 < number < share * span:
        raise InputError(
            f"`{argument}` must be 0 or at least {share * span:.3g}, a distance between images "
            f"with pixels in [{low:g}, {high:g}]. Received: {value!r}."
            + ("" if span == 1.0 else f" Write {number * span:.6g} for {number:.6g} of the range.")
        )
    return check_number(value, argument, minimum=0.0, maximum=maximum, hint=hint)


def check_bounds(value) -> tuple[float, float]:
    """Reads the `bounds` of valid pixels, `(low, high)`."""
    try:
        low, high = value
    except (TypeError, ValueError):
        raise InputError(f"`bounds` must be (low, high). Received: {value!r}.") from None
    low, high = check_number(low, "bounds"), check_number(high, "bounds")
    if low >= high:
        raise InputError(f"`bounds` must be (low, high), low < high. Received: {value!r}.")
    return low, high


def pixels_outside(argument: str, low: object, high: object) -> str:
    """The message for pixels outside [0, 1]: numbers as text, for a graph has no others."""
    remedy = _remedy(low, high)
    tail = f"; {remedy}." if remedy else "."
    return f"`{argument}` must hold pixels in [0, 1]. Received values from {low} to {high}{tail}"


def _remedy(low, high):
    try:
        low, high = float(low), float(high)
    except (TypeError, ValueError):
        return "divide 0-255 images by 255"  # what is most likely
    if not (math.isfinite(low) and math.isfinite(high)):
        return "NaN and infinity are no pixels"
    if -1.0 <= low < 0.0 and high <= 1.0:
        return "take (x + 1) / 2 of images in [-1, 1]"
    if low < 0.0:
        return "undo their standardisation, which belongs into the network as a layer"
    if high <= 255.0:
        return "divide 0-255 images by 255"
    return "divide 16-bit images by 65535" if high <= 65535.0 else ""


def check_pixels(x, argument: str = "x") -> None:
    """Refuses an array with pixels outside [0, 1], or none at all.

    Args:
        x: NumPy array of images, float.
        argument: The argument's name, for the error.

    Raises:
        InputError: If `x` is empty, holds NaN or lies outside [0, 1].
    """
    if x.size == 0:
        raise InputError(f"`{argument}` must hold at least one image. Received shape {x.shape}.")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0.0 and high <= 1.0):
        raise InputError(pixels_outside(argument, f"{low:g}", f"{high:g}"))
