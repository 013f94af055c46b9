"""Method arguments that change during training, as functions of the step counter."""

import ast
import functools
import inspect
import re

import keras
import tensorflow as tf

from soar_tf.errors import InputError, unknown
from soar_tf.validation import check_number, tensors_as_numbers

# Epochs or steps; their product with the steps of an epoch is a 64-bit integer then.
_LONGEST = 1e9

_TEXT = re.compile(r"\s*([a-z]+)\s*\(.*\)\s*", re.S)


class Schedule:
    """A number that changes during training: a pure function of the training step.

    A schedule can replace any numeric argument of a method that is not an integer:
    `SOAR(lambda_=Ramp(0, 0.5, epochs=5))`, or as text, `"ramp(0, 0.5, epochs=5)"`, which is also
    the form in configurations and on the command line. `fit` logs its value in the last step of
    each epoch under the argument's name. It depends on the step counter alone, so a resumed run
    continues it, and nothing is retraced.

    Args:
        epochs: Length of the schedule in epochs, larger than 0, or `None`.
        steps: The same in steps. Exactly one of the two is given.
        after: Start of the schedule, in the same unit; before that it has its first value.
    """

    def __init__(self, epochs, steps, after=0):
        if (epochs is None) == (steps is None):
            raise InputError(f"`{self.name}` needs one of `epochs` and `steps`.")
        self.unit = "epochs" if steps is None else "steps"
        length = epochs if steps is None else steps
        self.length = check_number(length, self.unit, minimum=0.0, maximum=_LONGEST, exclusive=True)
        self.after = check_number(after, "after", minimum=0.0, maximum=_LONGEST)

    @property
    def values(self):
        """The values at which the schedule starts, turns or ends; all others are between them."""
        raise NotImplementedError

    def at(self, step, steps_per_epoch=None):
        """The value in a step.

        Args:
            step: Number of steps done before: int or integer scalar tensor.
            steps_per_epoch: Steps per epoch, for schedules in epochs.

        Returns:
            float32 scalar tensor.

        Raises:
            InputError: If `steps_per_epoch` is needed but unknown.
        """
        scale = 1
        if self.unit == "epochs":
            if steps_per_epoch is None:
                raise InputError(
                    f"`{self}` counts epochs, but the number of steps per epoch is unknown: pass "
                    "`steps_per_epoch` to fit, or write the schedule with steps=."
                )
            scale = steps_per_epoch
        elapsed = tf.maximum(tf.cast(step, tf.float32) - self.after * scale, 0.0)
        return tf.cast(self._keras(max(1, round(self.length * scale)))(elapsed), tf.float32)

    def __str__(self):
        arguments = [*map(_plain, self.values), f"{self.unit}={_plain(self.length)}"]
        if self.after:
            arguments.append(f"after={_plain(self.after)}")
        return f"{self.name}({', '.join(arguments)})"

    __repr__ = __str__

    def __eq__(self, other):
        return isinstance(other, Schedule) and str(self) == str(other)

    def __hash__(self):
        return hash(str(self))


class Ramp(Schedule):
    """Linear from one value to another, then constant. A warm-up starts at 0.

    Args:
        start: First value.
        end: Last value.
        epochs: Length in epochs; or
        steps: length in steps.
        after: Start of the ramp, in the same unit.

    Example:

    >>> import soar_tf
    >>> ramp = soar_tf.methods.Ramp(0, "8/255", steps=100)
    >>> [round(255 * float(ramp.at(step)), 3) for step in (0, 50, 1000)]
    [0.0, 4.0, 8.0]
    """

    name = "ramp"

    def __init__(self, start, end, epochs=None, steps=None, after=0):
        super().__init__(epochs, steps, after)
        self.start, self.end = check_number(start, "start"), check_number(end, "end")

    @property
    def values(self):
        return [self.start, self.end]

    def _keras(self, length):
        return keras.optimizers.schedules.PolynomialDecay(self.start, length, self.end, power=1.0)


class Stairs(Schedule):
    """Piecewise constant: one value after the other, each for one epoch by default.

    The last value stays.

    Args:
        *levels: The values, at least one.
        epochs: Duration of each value in epochs, by default 1; or
        steps: duration in steps.
        after: Start of the first value, in the same unit.

    Example:

    >>> import soar_tf
    >>> h = soar_tf.methods.Stairs(0.1, 0.4, 0.8, 1.8, 3)  # CURE's, on CIFAR-10
    >>> [round(float(h.at(step, steps_per_epoch=10)), 2) for step in (0, 9, 10, 39, 99)]
    [0.1, 0.1, 0.4, 1.8, 3.0]
    """

    name = "stairs"

    def __init__(self, *levels, epochs=None, steps=None, after=0):
        super().__init__(1 if epochs is None and steps is None else epochs, steps, after)
        if not levels:
            raise InputError("`stairs` needs at least one value.")
        self.levels = [check_number(level, "stairs") for level in levels]

    @property
    def values(self):
        return list(self.levels)

    def _keras(self, length):
        if len(self.levels) == 1:
            return lambda step: self.levels[0]
        # Keras's pieces include their right boundary.
        boundaries = [float(length * k - 1) for k in range(1, len(self.levels))]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, self.levels)


SCHEDULES = {cls.name: cls for cls in (Ramp, Stairs)}


def parse(value):
    """The `Schedule` that `value` is or describes, or `None` if it is something else.

    Args:
        value: Anything; text such as `"ramp(0, 8/255, epochs=5)"` describes a schedule.

    Raises:
        InputError: If it looks like a schedule but is invalid.
    """
    if isinstance(value, Schedule) or not isinstance(value, str):
        return value if isinstance(value, Schedule) else None
    match = _TEXT.fullmatch(value)
    if match is None:
        return None
    if match[1] not in SCHEDULES:
        raise unknown("schedule", match[1], SCHEDULES)
    try:
        call = ast.parse(value.strip(), mode="eval").body
        source = functools.partial(ast.get_source_segment, value.strip())
        arguments = [source(item) for item in call.args]
        named = {item.arg: source(item.value) for item in call.keywords}
        return SCHEDULES[match[1]](*arguments, **named)
    except (SyntaxError, TypeError, AttributeError):
        raise InputError(
            "A schedule is written ramp(START, END, epochs=N) or stairs(A, B, ..., epochs=N), "
            f"optionally with steps= instead of epochs=, and after=. Received: {value!r}."
        ) from None


def last_value(value):
    """The last value of a schedule or of its text; anything else is returned unchanged.

    Args:
        value: A `Schedule`, its text, or any other value.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.last_value("ramp(0, 0.5, epochs=5)"), soar_tf.methods.last_value(0.3)
    (0.5, 0.3)
    """
    schedule = parse(value)
    return value if schedule is None else schedule.values[-1]


def accepting(init):
    """Wraps a method's `__init__` so that it accepts schedules in place of numbers.

    The constructor checks every value of a schedule, and the attributes get the last values. The
    schedules themselves are stored in the instance's `schedules`.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def construct(self, *args, **kwargs):
        try:
            bound = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            return init(self, *args, **kwargs)  # raises with the reason
        parsed = {name: parse(value) for name, value in bound.items() if name != "self"}
        schedules = {name: schedule for name, schedule in parsed.items() if schedule is not None}
        if not schedules:
            return init(self, *args, **kwargs)
        last = {name: schedule.values[-1] for name, schedule in schedules.items()}
        plain = {k: v for k, v in bound.items() if k not in ("self", "kwargs")}
        plain |= bound.get("kwargs", {})
        for name, schedule in schedules.items():
            for value in schedule.values:
                init(self, **{**plain, **last, name: value})
            with tensors_as_numbers():
                init(self, **{**plain, **last, name: tf.constant(schedule.values[-1])})
        init(self, **{**plain, **last})
        self.schedules = schedules

    return construct


def _plain(number):
    return repr(int(number)) if number == int(number) else repr(number)
