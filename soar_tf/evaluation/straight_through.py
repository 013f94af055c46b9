"""A network's own outputs with a usable backward pass, for attacks on what hides its gradients.

Backward pass differentiable approximation (BPDA; Athalye et al. 2018, arXiv:1802.00420), on the
graph that a network traces, so that it does not matter in which layer, function or library the
obstacle sits: rounding, signs, stopped gradients, casts to integers, comparisons, one-hot codes and
foreign code are passed through backward, and a gradient that somebody wrote by hand is replaced by
the one of the operations that the forward pass is made of.
"""

import functools

import tensorflow as tf

# The operations that `wide` passes through, too: they cut outputs off, or flatten them.
_FLAT = ("Minimum", "Maximum", "ClipByValue", "Tanh", "Sigmoid", "Relu6")
_STEPS = (
    *("Round", "Rint", "Floor", "Ceil", "FloorDiv", "Sign"),
    *("StopGradient", "PreventGradient"),
)
_FOREIGN = ("PyFunc", "PyFuncStateless")
_COMPARISONS = {"Greater": 1.0, "GreaterEqual": 1.0, "Less": -1.0, "LessEqual": -1.0}


class StraightThrough:
    """A logits function whose backward pass is honest.

    Args:
        logits_fn: Callable `[n, ...] -> [n, C]` of TensorFlow operations. What is inside a
            SavedModel keeps its own gradients.
        wide: Whether what saturates or cuts off (clips, tanh, sigmoid, selections) is passed
            through, too. It gives a slope where there is none, and a wrong one where there was.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.evaluation.straight_through import StraightThrough
    >>> staircase = StraightThrough(lambda x: tf.round(255 * x) / 255)
    >>> x = tf.constant([[0.1, 0.2]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(x)
    ...     total = tf.reduce_sum(staircase(x))
    >>> tape.gradient(total, x).numpy().round(3).tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, logits_fn, wide=False):
        self._logits_fn, self._wide = logits_fn, wide
        self._backward = tf.function(functools.partial(self._gradient), autograph=False)

    def __call__(self, x):
        outputs = tf.stop_gradient(self._logits_fn(x))

        @tf.custom_gradient
        def replaced(x, outputs):
            return tf.identity(outputs), lambda slope: (self._backward(x, slope), None)

        return replaced(x, outputs)

    def _gradient(self, x, slope):
        graph = tf.compat.v1.get_default_graph()
        with graph.gradient_override_map(_overrides(self._wide)):
            outputs = self._logits_fn(x)
            outputs = _rewired(graph, outputs, self._wide)
        for op in graph.get_operations():
            # `tf.custom_gradient` names its function in this attribute. Without it the operation
            # has the gradient of an identity, which leads to what the forward pass computed.
            if op.type == "IdentityN" and "_gradient_op_type" in op.node_def.attr:
                op._clear_attr("_gradient_op_type")
        (gradient,) = tf.gradients(outputs, x, slope)
        if gradient is None:
            return tf.zeros_like(x)
        return tf.where(tf.math.is_finite(gradient), gradient, 0.0)


def _overrides(wide):
    kinds = (*_STEPS, *_FLAT) if wide else _STEPS
    passed = dict.fromkeys(kinds, _registered_pass_through())
    foreign = dict.fromkeys(_FOREIGN, _registered_foreign())
    selected = {"SelectV2": _registered_selection(), "Select": _registered_selection()}
    return {**passed, **foreign, **(selected if wide else {})}


def _rewired(graph, outputs, wide):
    """Gives what integers and comparisons feed a slope: their consumers read a stand-in.

    A stand-in has the value of the operation that it stands for, and the slope of a smooth one.
    """
    for op in list(graph.get_operations()):
        stand_in = None
        if op.type == "Cast" and op.outputs[0].dtype.is_floating:
            stand_in = _cast_stand_in(op)
        elif op.type == "OneHot" and op.outputs[0].dtype.is_floating:
            stand_in = _one_hot_stand_in(op)
        if stand_in is None:
            continue
        exact, smooth = op.outputs[0], tf.cast(stand_in, op.outputs[0].dtype)
        consumers = [
            (user, [k for k, tensor in enumerate(user.inputs) if tensor is exact])
            for user in exact.consumers()
        ]
        value = smooth + _really_stopped(exact - smooth)
        value.set_shape(exact.shape)
        for user, positions in consumers:
            for position in positions:
                user._update_input(position, value)
        if exact is outputs:
            outputs = value
    return outputs


def _cast_stand_in(op):
    """What a cast to floats came from: the float before the integers, or a smooth comparison."""
    source = op.inputs[0].op
    if source.type == "Cast" and source.inputs[0].dtype.is_floating:
        return source.inputs[0]
    if source.type in _COMPARISONS and source.inputs[0].dtype.is_floating:
        difference = _COMPARISONS[source.type] * (source.inputs[0] - source.inputs[1])
        return tf.sigmoid(difference / (0.5 * _spread(difference) + 1e-6))
    return None


def _spread(difference):
    """The size of an image's differences: its own, since results must not depend on its batch."""
    axes = list(range(1, difference.shape.rank or 1))
    mean = tf.reduce_mean(tf.square(difference), axis=axes, keepdims=True)
    return _really_stopped(tf.sqrt(mean))


def _really_stopped(tensor):
    """A stopped gradient of our own, which is not passed through."""
    graph = tf.compat.v1.get_default_graph()
    with graph.gradient_override_map({"StopGradient": "StopGradient"}):
        return tf.stop_gradient(tensor)


def _one_hot_stand_in(op):
    """The softmax of what an argmax was taken of, where the code is along the last axis."""
    indices = op.inputs[0].op
    while indices.type in ("Cast", "Identity"):
        indices = indices.inputs[0].op
    if indices.type != "ArgMax" or not indices.inputs[0].dtype.is_floating:
        return None
    scores = indices.inputs[0]
    if scores.shape.rank != op.outputs[0].shape.rank:
        return None
    return tf.nn.softmax(scores)


@functools.cache
def _registered_pass_through():
    @tf.RegisterGradient("SoarTfPassThrough")
    def passed(op, *slopes):
        (slope,) = slopes
        return [_fits(slope, op.outputs[0], tensor) for tensor in op.inputs]

    return "SoarTfPassThrough"


@functools.cache
def _registered_selection():
    @tf.RegisterGradient("SoarTfSelection")
    def selected(op, slope):
        return [None, *(_fits(slope, op.outputs[0], tensor) for tensor in op.inputs[1:])]

    return "SoarTfSelection"


@functools.cache
def _registered_foreign():
    @tf.RegisterGradient("SoarTfForeign")
    def foreign(op, *slopes):
        slope, result = slopes[0], op.outputs[0]
        given = []
        for tensor in op.inputs:
            if slope is None or tensor.dtype != result.dtype:
                given.append(None)
                continue
            alike = tf.equal(tf.rank(tensor), tf.rank(result)) & tf.equal(
                tf.size(tensor), tf.size(result)
            )
            given.append(
                tf.cond(
                    alike,
                    lambda tensor=tensor: tf.reshape(slope, tf.shape(tensor)),
                    lambda tensor=tensor: tf.zeros_like(tensor),
                )
            )
        return given

    return "SoarTfForeign"


def _fits(slope, result, tensor):
    """The slope for an input of the result's shape; others, constants mostly, get none."""
    if not tensor.dtype.is_floating or tensor.shape.rank != result.shape.rank:
        return None
    same = all(a == b for a, b in zip(tensor.shape, result.shape, strict=True))
    return slope if same else None


class Rescaled:
    """A logits function whose logits differ by 10 at most, so that no loss saturates.

    Args:
        logits_fn: Callable `[n, ...] -> [n, C]`.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.evaluation.straight_through import Rescaled
    >>> Rescaled(lambda x: 1e4 * x)(tf.constant([[0.0, 3.0]])).numpy().tolist()
    [[-5.0, 5.0]]
    """

    def __init__(self, logits_fn):
        self._logits_fn = logits_fn

    def __call__(self, x):
        logits = self._logits_fn(x)
        high = tf.reduce_max(logits, axis=1, keepdims=True)
        low = tf.reduce_min(logits, axis=1, keepdims=True)
        span = tf.stop_gradient(tf.maximum(high - low, 1e-30))
        return 10.0 * (logits - tf.stop_gradient(0.5 * (high + low))) / span


class Averaged:
    """The logarithm of the mean softmax over several passes of a random network.

    Args:
        logits_fn: Callable `[n, ...] -> [n, C]`.
        draws: Number of passes.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.evaluation.straight_through import Averaged
    >>> bool(abs(Averaged(lambda x: x, 4)(tf.zeros([1, 2])) + 0.6931).numpy().max() < 1e-3)
    True
    """

    def __init__(self, logits_fn, draws):
        self._logits_fn, self.draws = logits_fn, draws

    def __call__(self, x):
        total = tf.nn.log_softmax(self._logits_fn(x))
        for _ in range(self.draws - 1):
            total = _log_sum(total, tf.nn.log_softmax(self._logits_fn(x)))
        return total - tf.math.log(float(self.draws))


def _log_sum(a, b):
    return tf.reduce_logsumexp(tf.stack([a, b]), axis=0)
