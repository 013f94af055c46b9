"""What a train step computes, counted in its graph: no pass too many, no second trace, no host."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from benchmarks import flops
from soar_tf import methods

LAYERS, BATCH = 2, 4


def network():
    """Two convolutions and a dense layer; the first convolution's input is the image."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3, activation="relu"),
         keras.layers.Conv2D(2, 3, activation="relu"), keras.layers.MaxPooling2D(2),
         keras.layers.Flatten(), keras.layers.Dense(3)]
    )  # fmt: skip


def batch(count=BATCH):
    x = np.random.default_rng(0).uniform(0, 1, (count, 6, 6, 1)).astype("float32")
    return x, np.arange(count) % 3


def compiled(method, **arguments):
    model = soar_tf.RobustModel(network(), method)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), **arguments)
    return model


def passes(method):
    """How many convolutions a step runs: (forward, by the input, by the kernel), a layer.

    Counted in the graph that TensorFlow executes: what no output or update needs is not there.
    Loops run as often as they say, and a pass over two batches as one counts twice.
    """
    x, y = (tf.constant(part) for part in batch())
    model = compiled(method, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda x, y: model.train_step((x, y)), autograph=False)
    graph = step.get_concrete_function(x, y).graph
    return tuple(_count(graph, graph.outputs + graph.control_outputs).tolist())


def _count(graph, wanted):
    kinds = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")
    counts = np.zeros(3, int)
    for op in flops.needed(graph, wanted):
        if op.type in kinds:
            counts[kinds.index(op.type)] += _batches(op)
        elif op.type in ("While", "StatelessWhile"):
            body = graph._get_function(op.get_attr("body").name).graph
            counts += flops.turns(op) * _count(body, body.outputs + body.control_outputs)
        # Neither hides passes from this count, nor keeps a loop's tensors for a gradient.
        assert "PartitionedCall" not in op.type and "TensorList" not in op.type
    return counts


def _batches(op):
    """How many batches a convolution runs over as one."""
    sides = [tensor.shape[0] for tensor in op.inputs if tensor.shape.rank == 4]
    return max(side // BATCH for side in sides if side is not None and side % BATCH == 0)


# A layer's convolution has three forms: forward (f), gradient by its input (i) and by its kernel
# (k). A backward pass to the weights skips the first layer's input: it is the image.
CASES = {
    # Loss: forward, backward.
    "standard": ("standard", {}, (2, 1, 2)),
    # Each of 3 attack steps forward and backward to the image; then as standard.
    "adversarial": ("adversarial", {"steps": 3}, (2 * 3 + 2, 2 * 3 + 1, 2)),
    # One attack step: f, i. At each of two points: f, i to the input gradient; then backward
    # through that gradient (f, k of each layer) and through the forward pass (i but the
    # first's, k).
    "soar without clip": ("soar", {"penalty_clipnorm": None}, (2 * 5, 2 * 3 + 2 * 1, 2 * 4)),
    # Clipping needs the loss's kernel gradients by themselves: k, but no pass of its own.
    "soar": ("soar", {}, (2 * 5, 2 * 3 + 2 * 1, 2 * 4 + 2)),
    "soar from zero": ("soar", {"init": "zero"}, (2 * 4, 2 * 2 + 2 * 1, 2 * 4 + 2)),
    # Two points without an attack step.
    "cure": ("cure", {}, (2 * 4, 2 * 2 + 2 * 1, 2 * 4)),
    # One point.
    "gradient-norm": ("gradient-norm", {}, (2 * 2, 2 + 1, 2 * 2)),
    "fast": ("fast", {}, (2 * 2, 2 + 1, 2)),
    "n-fgsm": ("n-fgsm", {}, (2 * 2, 2 + 1, 2)),
    # At x: f, i, which is the attack step's gradient as well. At x + eta: f, i, and backward
    # through both as above. Then the loss.
    "gradalign": ("gradalign", {}, (2 + 2 * 2 + 2, 2 + 2 + 1 + 1, 2 * 2 + 2)),
    # Another start has a gradient of its own: f, i.
    "gradalign from noise": (
        "gradalign",
        {"start": "noise"},
        (2 * 2 + 2 * 2 + 2, 2 * 2 + 2 + 1 + 1, 2 * 2 + 2),
    ),
    # One attack step; three points of a segment forward and backward; the loss.
    "elle": ("elle", {}, (2 + 2 * 3 + 2, 2 + 3 + 1, 2 * 3 + 2)),
    # One attack step; the image and the point forward and backward.
    "qub": ("qub", {}, (2 + 2 * 2, 2 + 2, 2 * 2)),
    "qub of several steps": ("qub", {"steps": 3}, (2 * 3 + 2 * 2, 2 * 3 + 2, 2 * 2)),
    # One pass gives p(x), fixed for the attack and trained; then x^.
    "ikl": ("ikl", {"steps": 3}, (2 + 2 * 3 + 2, 2 * 3 + 2, 2 * 2)),
    "trades": ("trades", {"steps": 3}, (2 + 2 * 3 + 2, 2 * 3 + 2, 2 * 2)),
    # The passes of both; and SOAR's loss, now a part of the objective, has a backward pass.
    "sum": (
        "sum",
        {"methods": [{"method": "adversarial", "steps": 3}, "soar"]},
        (2 * 4 + 2 * 5, 2 * 3 + 1 + 2 * 3 + 2 * 1 + 1, 2 + 2 * 4 + 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_passes_of_a_step(case):
    name, arguments, expected = CASES[case]
    assert passes(methods.get(name, **arguments)) == expected


class _Counting(methods.Method):
    """Counts how often its objective is traced."""

    traces = 0

    def terms(self, forward, x, y, *, loss_fn, keys):
        _Counting.traces += 1
        logits = forward.training(x)
        return methods.Terms(loss_fn(y, logits), logits)


def test_fit_traces_the_step_twice_and_never_again():
    # Keras traces once for the variables that the optimizer creates, and once without them.
    _Counting.traces = 0
    model = compiled(_Counting(), jit_compile=False)
    x, y = batch(10)
    model.fit(x, y, batch_size=4, epochs=2, validation_data=(x[:3], y[:3]), verbose=0)
    model.evaluate(x, y, batch_size=4, verbose=0)
    model.fit(x[:7], y[:7], batch_size=3, verbose=0)
    assert _Counting.traces == 2


def test_attacks_are_traced_once_whatever_survives():
    traces = []
    layers = network()

    def logits_fn(x):
        traces.append(x.shape)
        return layers(x)

    attack = soar_tf.attacks.PGD(epsilon=0.3, steps=4)
    x, y = batch(12)
    attack(logits_fn, x[:5], y[:5])
    first = len(traces)
    survivors = set()
    for count in (12, 7, 1):
        for seed in range(3):
            x_adv = attack(logits_fn, x[:count], y[:count], seed=seed)
            survivors.add(int(np.sum(np.argmax(layers(x_adv), 1) == y[:count])))
    assert first > 0 and len(traces) == first and len(survivors) > 1


def test_the_whole_step_is_one_stablehlo_module_without_host_calls_or_generators():
    model = compiled(soar_tf.methods.SOAR(epsilon=0.1), jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    x, y = (tf.constant(part) for part in batch())
    step = tf.function(lambda x, y: model.train_step((x, y)), jit_compile=True, autograph=False)
    module = step.experimental_get_compiler_ir(x, y)(stage="stablehlo", platform_name="CPU")
    operations = set(re.findall(r"\bstablehlo\.([a-z_]+)", module))
    assert len(re.findall(r"^module @", module, re.M)) == 1 and "convolution" in operations
    outside = {"custom_call", "infeed", "outfeed", "send", "recv", "rng", "rng_bit_generator"}
    assert not operations & outside
    # The updated weights and momenta leave the module as results.
    results = re.search(r"@main\(.*?\) -> \((.*?)\) {", module)[1]
    assert results.count("tensor<3x3x2x2xf32>") == 2
