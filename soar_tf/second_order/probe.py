"""A numerical probe: is a layer's second-order gradient the derivative of its first-order one?

The layer itself is called, not a copy, so layers without a config can be probed. During the call
its variables' values are replaced by float64 tensors in a `keras.StatelessScope`, and its compute
dtype is float64.
"""

import contextlib
import dataclasses
import re

import keras
import numpy as np
import tensorflow as tf

from soar_tf.models import keras_internals
from soar_tf.models.precision import compute_dtype
from soar_tf.second_order import replacements

DRAWS = 3


@dataclasses.dataclass(frozen=True)
class Precision:
    """The steps of the finite differences and the tolerances for a dtype."""

    dtype: str
    steps: tuple
    tolerance: float
    agreement: float


# Two steps distinguish a wrong gradient (the two differences agree) from a kink that the finite
# difference crosses and from a call that internally rounds to a coarser dtype.
PRECISIONS = (
    Precision("float64", (1e-6, 1e-7), 1e-4, 1e-3),
    Precision("float32", (1e-2, 3e-3), 2e-2, 5e-2),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of a probe: a verdict of `check_second_order`, and the reasons for it."""

    verdict: str
    relative_error: float | None = None
    note: str = ""
    replaced: frozenset = frozenset()


def probe(layer, args, kwargs, *, xla=True):
    """Compares a layer's second-order gradient with differences of its first-order gradient.

    A smooth, curved function L of the outputs is differentiated with respect to the layer's float
    inputs, and the inner product of that gradient with random numbers with respect to inputs and
    weights, both by gradient tapes. The second derivative is taken along a random direction of
    (inputs, weights) and compared with a difference of the first-order gradient along it.

    Args:
        layer: A built layer, model or operation.
        args: The positional arguments of a call, including eager tensors.
        kwargs: The keyword arguments of the call.
        xla: Whether max-pooling is replaced; see `second_order.exact`.

    Returns:
        A `Finding` with verdict `"exact"`, `"wrong"`, `"missing"` or `"unchecked"`.
    """
    finding = None
    for precision in PRECISIONS:
        with replacements.exact(xla=xla) as used:
            finding = _measure(layer, (args, kwargs), precision)
        if finding.verdict != "unchecked":
            return dataclasses.replace(finding, replaced=frozenset(used))
    return finding


def _measure(layer, call, precision):
    error = None
    for draw in range(DRAWS):
        trial = _Trial(layer, call, precision.dtype, np.random.default_rng(draw))
        try:
            trial.prepare()
        except LookupError as no_gradient:
            return Finding("missing", note=_missing_operation(no_gradient))
        except Exception as failure:
            return Finding(
                "unchecked", note=f"its call fails in {precision.dtype}: {_short(failure)}"
            )
        if not trial.inputs:
            return Finding("exact", note="no float input, so no input gradient passes it")
        try:
            automatic = trial.automatic()
        except Exception as failure:
            return Finding("missing", note=_missing_operation(failure))
        differences = [trial.difference(step) for step in precision.steps]
        scale = max(abs(automatic), *map(abs, differences), trial.floor)
        errors = [abs(automatic - difference) / scale for difference in differences]
        error = min(errors) if error is None else min(error, *errors)
        if error <= precision.tolerance:
            note = "" if trial.connected else "no gradient passes it"
            return Finding("exact", error, note)
        if abs(differences[0] - differences[1]) <= precision.agreement * scale:
            return Finding("wrong", error)
    return Finding("unchecked", error, "its gradient is too rough for a finite difference")


class _Trial:
    """One random function L, one random direction."""

    def __init__(self, layer, call, dtype, generator):
        self.layer, self.call, self.dtype, self.generator = layer, call, dtype, generator
        self.flat = tf.nest.flatten(call)
        self.inputs = [i for i, value in enumerate(self.flat) if _is_float(value)]
        self.weights = [w for w in getattr(layer, "trainable_variables", []) if _is_float(w)]
        self.fixed = [
            (w, tf.cast(w.value, dtype))
            for w in getattr(layer, "non_trainable_variables", [])
            if _is_float(w)
        ]

    def prepare(self):
        """Draws the point, the direction and L, and calls the layer once."""
        values = [self.flat[i] for i in self.inputs] + [w.value for w in self.weights]
        draw = self._normal
        scales = [_root_mean_square(value) for value in values]
        # Recorded activations contain ties and exact zeros, at which pooling and ReLU have kinks.
        self.point = [
            tf.cast(value, self.dtype) + 0.1 * scale * tf.abs(draw(value.shape))
            for value, scale in zip(values, scales, strict=True)
        ]
        self.direction = [
            scale * draw(value.shape) for value, scale in zip(values, scales, strict=True)
        ]
        outputs = self._outputs(self.point)
        self.heads = [
            (draw(y.shape), 3.0 * draw(y.shape), 1.0 / _root_mean_square(y)) for y in outputs
        ]
        self.projections = [
            scale * draw(value.shape) for value, scale in zip(values, scales, strict=True)
        ][: len(self.inputs)]
        first = self._first_order(self.point)
        self.connected = any(gradient is not None for gradient in first)
        self.floor = 1e-6 * self._typical_size(first) + 1e-30

    def automatic(self):
        """The derivative along the direction, computed by nested gradient tapes."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.point)
            projected = self._projected(self.point)
        gradients = tape.gradient(projected, self.point)
        return sum(
            float(tf.reduce_sum(tf.convert_to_tensor(gradient) * along))
            for gradient, along in zip(gradients, self.direction, strict=True)
            if gradient is not None
        )

    def difference(self, step):
        """The same derivative, computed as a central difference of first-order gradients."""
        ahead, behind = (
            self._projected(
                [p + sign * step * d for p, d in zip(self.point, self.direction, strict=True)]
            )
            for sign in (1.0, -1.0)
        )
        return float(ahead - behind) / (2 * step)

    def _normal(self, shape):
        return tf.constant(self.generator.standard_normal(shape), self.dtype)

    def _outputs(self, point):
        flat = list(self.flat)
        for position, value in zip(self.inputs, point, strict=False):
            flat[position] = value
        args, kwargs = tf.nest.pack_sequence_as(self.call, flat)
        values = point[len(self.inputs) :]
        mapping = [*zip(self.weights, values, strict=True), *self.fixed]
        with _computing_in(self.layer, self.dtype, mapping):
            outputs = self.layer(*args, **kwargs)
        return [tf.cast(y, self.dtype) for y in tf.nest.flatten(outputs) if _is_float(y)]

    def _first_order(self, point):
        inputs = point[: len(self.inputs)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            total = tf.add_n(
                [
                    tf.reduce_sum(factor * tf.sin(y * scale + phase))
                    for y, (factor, phase, scale) in zip(
                        self._outputs(point), self.heads, strict=True
                    )
                ]
                or [tf.zeros([], self.dtype)]
            )
        return tape.gradient(total, inputs)

    def _projected(self, point):
        products = [
            tf.reduce_sum(tf.convert_to_tensor(gradient) * projection)
            for gradient, projection in zip(self._first_order(point), self.projections, strict=True)
            if gradient is not None
        ]
        return tf.add_n(products or [tf.zeros([], self.dtype)])

    def _typical_size(self, gradients):
        """The typical size of the projected gradient."""
        squares = [
            float(tf.reduce_sum(tf.square(tf.convert_to_tensor(gradient) * projection)))
            for gradient, projection in zip(gradients, self.projections, strict=True)
            if gradient is not None
        ]
        return sum(squares) ** 0.5


@contextlib.contextmanager
def _computing_in(layer, dtype, mapping):
    """Context in which `layer` computes in `dtype` with different values of its variables."""
    layers = keras_internals.layers_of(layer) if isinstance(layer, keras.layers.Layer) else []
    scope = keras.StatelessScope()
    # Not through the constructor, which casts to the variables' dtype.
    scope.state_mapping.update({id(variable): value for variable, value in mapping})
    with contextlib.ExitStack() as stack:
        for inner, name, value in keras_internals.input_casts(layers):
            stack.enter_context(instance_attribute(inner, name, value))
        stack.enter_context(compute_dtype(layers, dtype))
        stack.enter_context(scope)
        yield


@contextlib.contextmanager
def instance_attribute(instance, name, value):
    """Context with a replaced attribute of one object, bypassing Keras's attribute tracking."""
    attributes = instance.__dict__
    before = {name: attributes[name]} if name in attributes else {}
    try:
        attributes[name] = value
        yield
    finally:
        del attributes[name]
        attributes.update(before)


def operations(layer, args, kwargs, *, xla=True):
    """The types of the TensorFlow operations in a call of `layer`, which is traced but not run.

    A function with a custom gradient counts as an operation `"CustomGradient"`.
    """

    def call(*tensors):
        given = iter(tensors)
        flat = [next(given) if tf.is_tensor(v) else v for v in tf.nest.flatten((args, kwargs))]
        args_, kwargs_ = tf.nest.pack_sequence_as((args, kwargs), flat)
        with replacements.exact(xla=xla):
            return layer(*args_, **kwargs_)

    tensors = [v for v in tf.nest.flatten((args, kwargs)) if tf.is_tensor(v)]
    graph = tf.function(call, autograph=False).get_concrete_function(*tensors).graph
    nodes = list(graph.as_graph_def().node)
    for function in graph.as_graph_def().library.function:
        nodes.extend(function.node_def)
    types = {node.op for node in nodes}
    if any("_gradient_op_type" in node.attr for node in nodes):
        types.add("CustomGradient")
    return types


def _is_float(value):
    dtype = getattr(value, "dtype", None)
    if dtype is None or not (tf.is_tensor(value) or isinstance(value, keras.Variable)):
        return False
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(dtype))


def _root_mean_square(value):
    """The root mean square of a tensor, or 1 if that is extreme."""
    size = float(tf.sqrt(tf.reduce_mean(tf.square(tf.cast(value, tf.float64)))))
    return size if 1e-3 < size < 1e12 else 1.0


def _missing_operation(error):
    """The operation that has no gradient, or the first line of the error."""
    match = re.search(r"no entry for: (\w+)", str(error))
    return match.group(1) if match else _short(error)


def _short(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:100] if lines else ''}"
