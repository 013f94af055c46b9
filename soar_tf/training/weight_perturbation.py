r"""Adversarial weight perturbation: a step's gradient where the weights are a little worse.

With g the gradient of the step's objective with respect to a kernel w, the gradient that the
optimizer gets is taken at (Wu et al. 2020, arXiv:2004.05884, one ascent step)

$$w + \gamma\, \|w\|_2\, \frac{g}{\|g\|_2}$$

for every trainable weight of rank 2 or more at once, and applied at w. Both gradients are those of
the global batch, summed over micro-batches and replicas and clipped as ever, at the same
adversarial points, found at w. The first one leaves no trace in BatchNorm's moving statistics and
in Dropout's seeds.
"""

import contextlib

import tensorflow as tf

from soar_tf.methods import schedules
from soar_tf.validation import check_number


class WeightPerturbation:
    """How far the weights are perturbed in each step, and the step that does it.

    Args:
        size: The length of a kernel's perturbation relative to the kernel's, at least 0; a schedule
            or its text; `None` for no perturbation.

    Attributes:
        setting: `size` as a number, as the schedule's text, or `None`.
        schedule: The `soar_tf.methods.Schedule`, or `None`.

    Raises:
        InputError: If a size is negative or no number.
    """

    def __init__(self, size=None):
        if isinstance(size, str) and size.lower() == "none":
            size = None
        self.schedule = schedules.parse(size)
        self.setting = None if size is None else str(self.schedule)
        if self.schedule is not None:
            for value in self.schedule.values:
                check_number(value, "awp", minimum=0.0)
        elif size is not None:
            self.setting = check_number(size, "awp", minimum=0.0)

    @property
    def counts_epochs(self):
        """Whether a schedule has its length in epochs."""
        return self.schedule is not None and self.schedule.unit == "epochs"

    def at(self, step, steps_per_epoch=None):
        """The size in a step: a number, or a scalar tensor if it follows a schedule."""
        if self.schedule is None:
            return self.setting or 0.0
        return self.schedule.at(step, steps_per_epoch)

    def logged(self, size):
        """What `fit` logs of a step of that size: the size, if it follows a schedule."""
        return {} if self.schedule is None else {"awp": size}

    def step(self, network, size, x, compute, reduce):
        """The whole batch's `Part`, at the perturbed weights, and its global gradient.

        Where `size` is 0, the weights are not perturbed, and no first gradient is computed.

        Args:
            network: The network, whose weights are the same afterwards, to the bit.
            size: What `at` gave for this step.
            x: The batch's images.
            compute: Callable `(points=(), reuse=True, keep_points=False)` that gives the `Part` at
                the current weights: with the points that it is given instead of those that the
                method searches, where `reuse` is true; with its own ones as `Part.points` if asked.
            reduce: Callable of a `Part` that gives its global gradient by each trainable weight.

        Returns:
            `(part, gradients)`.
        """
        wanted = size > 0.0
        if not tf.is_tensor(wanted) or tf.executing_eagerly():
            wanted = bool(wanted)
        if wanted is False:
            whole = compute()
            return whole, reduce(whole)
        first = _first(network, wanted, x, compute)
        directions = reduce(first)
        with _moved(network.trainable_weights, directions, size):
            whole = compute(first.points, reuse=wanted)
        return whole, reduce(whole)


def _first(network, wanted, x, compute):
    """The `Part` at the unperturbed weights; where it is not wanted, zeros for what is used."""
    forms = []

    def whole():
        with _kept(network.non_trainable_variables):
            forms.append(compute(keep_points=True))
        return _used(forms[0])

    def nothing():
        # Traced second, when the form is known. Points are as large as the images.
        count = len(forms[0].points)
        gradients = _used(forms[0])[count:]
        return [tf.zeros_like(x)] * count + [tf.zeros(g.shape, g.dtype) for g in gradients]

    values = iter(whole() if wanted is True else tf.cond(wanted, whole, nothing))

    def taken(old):
        return None if old is None else [None if g is None else next(values) for g in old]

    form = forms[0]
    points = tuple(tf.ensure_shape(next(values), point.shape) for point in form.points)
    gradients = taken(form.gradients)
    return form._replace(
        points=points, gradients=gradients, penalty_gradients=taken(form.penalty_gradients)
    )


def _used(part):
    """The tensors of a first `Part` that the step goes on with, in the order of `_first`."""
    gradients = [*part.gradients, *(part.penalty_gradients or ())]
    return [*part.points, *(tf.convert_to_tensor(g) for g in gradients if g is not None)]


@contextlib.contextmanager
def _kept(variables):
    """Gives the variables their present values back at the end, to the bit."""
    values = [tf.identity(variable.value) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


@contextlib.contextmanager
def _moved(weights, gradients, size):
    """Moves every weight of rank 2 or more up its gradient, by `size` times its own length."""
    pairs = [
        (weight, tf.convert_to_tensor(gradient))
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None and len(weight.shape) > 1
    ]
    with _kept([weight for weight, _ in pairs]):
        for weight, gradient in pairs:
            value = tf.cast(tf.convert_to_tensor(weight.value), tf.float32)
            moved = value + size * tf.norm(value) * _direction(tf.cast(gradient, tf.float32))
            weight.assign(tf.cast(moved, weight.dtype))
        yield


def _direction(gradient):
    """The unit vector along a gradient; zero where the gradient is zero or not finite."""
    # A loss scale may be large, and a square may underflow.
    scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient)))
    unit = tf.math.divide_no_nan(scaled, tf.norm(scaled))
    return tf.where(tf.reduce_all(tf.math.is_finite(unit)), unit, tf.zeros_like(unit))
