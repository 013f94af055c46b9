"""`check_second_order`: whether the gradient of a curvature penalty is right for a network."""

import contextlib
import dataclasses
import json

import keras
import numpy as np
import tensorflow as tf

from soar_tf.errors import InputError
from soar_tf.models import keras_internals, precision
from soar_tf.second_order import known_layers as known
from soar_tf.second_order import replacements
from soar_tf.second_order.probe import Finding, instance_attribute, operations, probe

_MAX_CALLS = 3  # calls of one layer with different shapes that are probed


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One row of a `SecondOrderReport`.

    Attributes:
        name: The layer's name.
        layer_class: Its class, with the activation if that is the reason.
        verdict: `"exact"`; `"replaced"` (exact, because `second_order.exact` replaces a TensorFlow
            function); `"inference"` (exact, because the penalty is computed in inference mode);
            `"wrong"`; `"missing"` (TensorFlow has no second-order gradient, so training raises);
            or `"unchecked"`.
        relative_error: The measured relative error of the second-order gradient, or `None`.
        note: Further explanation.
    """

    name: str
    layer_class: str
    verdict: str
    relative_error: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class SecondOrderReport:
    """The result of `check_second_order`: one `LayerReport` per layer, in `layers`."""

    layers: tuple

    @property
    def ok(self):
        """Whether no layer's second-order gradient is wrong or missing."""
        return not any(row.verdict in ("wrong", "missing") for row in self.layers)

    def raise_if_wrong(self):
        """Rejects the network if a layer's second-order gradient is wrong or missing.

        Raises:
            InputError: Names the first such layer and what to use instead.
        """
        for row in self.layers:
            if row.verdict in ("wrong", "missing"):
                raise InputError(known.error_message(row))

    def __str__(self):
        table = [("layer", "class", "second order", "error", "note")]
        for row in self.layers:
            error = "" if row.relative_error is None else f"{row.relative_error:.0e}"
            table.append((row.name, row.layer_class, row.verdict, error, row.note))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([*lines, self._summary()])

    def _summary(self):
        bad = [row.name for row in self.layers if row.verdict in ("wrong", "missing")]
        if bad:
            return f"{len(bad)} of {len(self.layers)} layers cannot be trusted: {', '.join(bad)}."
        unchecked = [row.name for row in self.layers if row.verdict == "unchecked"]
        if unchecked:
            return f"No layer was found wrong; unchecked: {', '.join(unchecked)}."
        return f"{len(self.layers)} of {len(self.layers)} layers can be trusted."


def check_second_order(network, *, sample=None, quick=False, xla=True):
    """Checks, layer by layer, the second-order gradients that a curvature penalty trains with.

    Every innermost layer is called as the penalty calls it (in inference mode, with the functions
    that TensorFlow gets wrong replaced) at the shapes that it has in this network. The derivative
    of its input gradient with respect to inputs and weights, computed by nested gradient tapes, is
    compared in float64 with a finite difference of first-order gradients. Computation that a custom
    model or layer does besides calling its inner layers gets a separate row.

    A layer that stops gradients on purpose (a straight-through estimator) is reported as wrong: the
    penalty's gradient is then not the derivative of the penalty.

    Args:
        network: Any `keras.Model`.
        sample: A batch of inputs; 2 examples are enough. Default: random pixels of the network's
            input shape, with 32 for each unknown side.
        quick: Whether to skip measuring Keras layers whose class is known, as `fit` does.
        xla: Whether to check for training with `jit_compile=True` as well, under which
            TensorFlow's max-pooling is wrong if your code calls it directly.

    Returns:
        A `SecondOrderReport`.

    Raises:
        InputError: If `network` is not a `keras.Model`, or if its input shape is unknown and no
            `sample` is given.

    Example:

    >>> import keras
    >>> from soar_tf.second_order.check import check_second_order
    >>> network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.MaxPooling2D(2),
    ...                             keras.layers.Flatten(), keras.layers.Dense(10, "softsign")])
    >>> report = check_second_order(network)
    >>> [row.verdict for row in report.layers], report.ok
    (['replaced', 'exact', 'missing'], False)
    """
    if not isinstance(network, keras.Model):
        raise InputError(f"`network` must be a keras.Model. Received: {type(network).__name__}.")
    if not all(layer.built for layer in keras_internals.layers_of(network)):
        network(_sample(network, sample), training=False)
    units = _units(network, set())
    rows = {id(unit): known.by_class(unit) for unit in units} if quick else {}
    if all(rows.get(id(unit)) for unit in units):
        return _report(network, units, rows)
    calls, connected = _recorded_calls(network, units, _sample(network, sample), xla)
    seen = {}
    for unit in units:
        if rows.get(id(unit)) is None:
            rows[id(unit)] = _worst_finding(unit, calls.get(id(unit), []), rows, seen, quick, xla)
    return _report(network, units, rows, connected)


def _report(network, units, rows, connected=True):
    layers = [
        LayerReport(
            unit.name, known.describe(unit), finding.verdict, finding.relative_error, finding.note
        )
        for unit, finding in ((unit, rows[id(unit)]) for unit in units)
    ]
    if not connected:
        row = (network.name, type(network).__name__, "missing", None, known.DISCONNECTED)
        layers.append(LayerReport(*row))
    return SecondOrderReport(tuple(layers))


def _units(node, seen):
    """What is checked separately: innermost layers first, then the code around them."""
    if id(node) in seen or isinstance(node, keras.layers.InputLayer):
        return []
    seen.add(id(node))
    inner = _children(node)
    if not inner or known.is_atomic(node):
        return [node]
    units = [unit for child in inner for unit in _units(child, seen)]
    return units if keras_internals.calls_its_layers_only(node) else [*units, node]


def _children(node):
    """The layers and operations directly inside `node`."""
    if isinstance(node, keras_internals.Functional):
        return node.operations
    if not isinstance(node, keras.layers.Layer):
        return []
    return keras_internals.layers_of(node, include_self=False, recursive=False)


def _sample(network, sample):
    if sample is not None:
        return tf.nest.map_structure(lambda x: tf.convert_to_tensor(np.asarray(x)[:2]), sample)
    try:
        shape = network.input_shape
    except AttributeError:
        shape = None
    if not isinstance(shape, tuple) or not all(n is None or isinstance(n, int) for n in shape):
        raise InputError(
            "`sample` must be a batch of inputs for this network, since it does not have a single "
            f"known input shape. Received: None, and the input shape {shape}."
        )
    sides = [32 if side is None else side for side in shape[1:]]
    return tf.constant(np.random.default_rng(0).random((2, *sides)), tf.float32)


def _recorded_calls(network, units, sample, xla):
    """The arguments of each unit's calls in inference mode, and whether gradients reach x."""
    calls = {}

    def recorder(unit):
        original = unit.call

        def call(*args, **kwargs):
            given = calls.setdefault(id(unit), [])
            shapes = [_shapes((args, kwargs)) for args, kwargs in given]
            if len(given) < _MAX_CALLS and _shapes((args, kwargs)) not in shapes:
                given.append((args, kwargs))
            return original(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for unit in units:
            stack.enter_context(instance_attribute(unit, "call", recorder(unit)))
        stack.enter_context(replacements.exact(xla=xla))
        stack.enter_context(precision.in_float32(network))
        with tf.GradientTape() as tape:
            floats = [x for x in tf.nest.flatten(sample) if x.dtype.is_floating]
            tape.watch(floats)
            outputs = tf.nest.flatten(network(sample, training=False))
        gradients = tape.gradient(outputs, floats)
    return calls, not floats or any(gradient is not None for gradient in gradients)


def _shapes(call):
    return [
        (tuple(value.shape), str(value.dtype)) if tf.is_tensor(value) else repr(value)
        for value in tf.nest.flatten(call)
    ]


def _worst_finding(unit, calls, rows, seen, quick, xla):
    """The worst finding among the probes of a unit's calls."""
    culprit = _wrong_inner_layer(unit, rows)
    if culprit is not None:
        return Finding("unchecked", note=f"contains {culprit!r}")
    if not calls:
        return Finding("unchecked", note="not called in inference mode")
    findings = []
    for args, kwargs in calls:
        tensors = [value for value in tf.nest.flatten((args, kwargs)) if tf.is_tensor(value)]
        if not all(hasattr(value, "numpy") for value in tensors):
            return Finding("unchecked", note="called inside a loop; see the layer around it")
        key = _key(unit, args, kwargs)
        if key not in seen:
            seen[key] = known.explain(unit, _check_call(unit, args, kwargs, quick, xla))
        findings.append(seen[key])
    return min(findings, key=lambda finding: known.SEVERITY.index(finding.verdict))


def _wrong_inner_layer(unit, rows):
    """The name of an inner layer that is wrong or missing, or `None`."""
    if not keras_internals.has_layers(unit):
        return None
    for layer in keras_internals.layers_of(unit, include_self=False):
        finding = rows.get(id(layer))
        if finding is not None and finding.verdict in ("wrong", "missing"):
            return layer.name
    return None


def _check_call(unit, args, kwargs, quick, xla):
    custom = not type(unit).__module__.startswith("keras.")
    op_types = set()
    if custom or isinstance(unit, keras.layers.Lambda):
        # A layer that cannot be traced is still probed.
        with contextlib.suppress(Exception):
            op_types = operations(unit, args, kwargs, xla=xla)
        if xla and op_types & known.MAX_POOLS:
            return Finding("wrong", note=known.CUSTOM_MAX_POOL)
        if quick and op_types and _children(unit) and not op_types & known.SUSPICIOUS:
            return Finding("exact", note="by its operations")
    finding = probe(unit, args, kwargs, xla=xla)
    if finding.verdict == "wrong" and "StopGradient" in op_types:
        return dataclasses.replace(finding, note=known.STOPS)
    return finding


def _key(unit, args, kwargs):
    """A key that is equal for calls that share one probe."""
    try:
        config = {**unit.get_config(), "name": None, "seed": None, "dtype": None}
    except Exception:  # raised by a custom layer
        config = {}
    identity = id(unit) if _children(unit) or not config else None
    return (
        type(unit),
        identity,
        json.dumps([config, _shapes((args, kwargs))], default=repr, sort_keys=True),
    )
