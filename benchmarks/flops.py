"""Floating-point operations of convolutions and matrix products in a TensorFlow graph."""

import math

import numpy as np
import tensorflow as tf

from benchmarks import common

_SIZE = 2048
PRODUCT = 2 * _SIZE**3
_CONVOLUTIONS = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")


def of_graph(graph, wanted=None):
    """Operations that the graph executes; what no output needs is left out, loops count in full.

    Args:
        graph: A function's graph with static shapes.
        wanted: The tensors and operations it is run for. Default: its outputs.
    """
    wanted = graph.outputs + graph.control_outputs if wanted is None else wanted
    total = 0
    for op in needed(graph, wanted):
        if op.type in _CONVOLUTIONS:
            total += _convolution(op)
        elif op.type == "MatMul":
            left = op.inputs[0].shape
            inner = left[0] if op.get_attr("transpose_a") else left[1]
            total += 2 * math.prod(op.outputs[0].shape) * inner
        elif op.type in ("While", "StatelessWhile"):
            body = graph._get_function(op.get_attr("body").name).graph
            total += turns(op) * of_graph(body)
        elif op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            total += of_graph(graph._get_function(op.get_attr("f").name).graph)
    return total


def matrix_product():
    """A function that times one large matrix product, of `PRODUCT` operations."""
    a = tf.random.normal([_SIZE, _SIZE])
    product = tf.function(lambda: tf.reduce_sum(a @ a))
    return lambda: common.timed(lambda: product().numpy())


def _convolution(op):
    kernel, result = op.inputs[1], op.outputs[0]
    if op.type == "Conv2DBackpropInput":
        result = op.inputs[2]
    elif op.type == "Conv2DBackpropFilter":
        kernel, result = op.outputs[0], op.inputs[2]
    pixels = math.prod(result.shape[:3])
    return 2 * pixels * math.prod(kernel.shape)


def needed(graph, wanted):
    """The operations that the wanted tensors, and the updates of variables, depend on."""
    waiting = [item if isinstance(item, tf.Operation) else item.op for item in wanted]
    waiting += [op for op in graph.get_operations() if op.type.startswith("Assign")]
    seen = {}
    while waiting:
        op = waiting.pop()
        if op.name not in seen:
            seen[op.name] = op
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return seen.values()


def turns(op):
    """How often a loop runs: the one constant among its inputs that is larger than 1."""
    values = (tf.get_static_value(tensor) for tensor in op.inputs)
    return next(int(v) for v in values if v is not None and np.ndim(v) == 0 and v > 1)
