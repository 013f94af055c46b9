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
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(2, 3, activation="relu"),
            keras.layers.Conv2D(2, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def batch(count=BATCH):
    x = np.random.default_rng(0).uniform(0, 1, (count, 6, 6, 1)).astype("float32")
    return x, np.arange(count) % 3


def compiled(method, skip_clipped="auto", awp=None, **arguments):
    model = soar_tf.RobustModel(network(), method, skip_clipped=skip_clipped, awp=awp)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), **arguments)
    return model


def passes(method, skip_clipped=False, awp=None, align=False):
    """How many convolutions a step runs: (forward, by the input, by the kernel), a layer.

    Counted in the graph that TensorFlow executes: what no output or update needs is not there.
    Loops run as often as they say, and a pass over two batches as one counts twice.
    """
    graph = graph_of(method, skip_clipped, awp, align)
    return tuple(_count(graph, graph.outputs + graph.control_outputs).tolist())


def graph_of(method, skip_clipped, awp=None, align=False):
    x, y = (tf.constant(part) for part in batch())
    model = compiled(method, skip_clipped, awp, jit_compile=False)
    if align:
        model.log_alignment()
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda x, y: model.train_step((x, y)), autograph=False)
    return step.get_concrete_function(x, y).graph


def _count(graph, wanted, rows=None):
    """Convolutions of `rows` examples (`None`: of any number), by kind."""
    kinds = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")
    counts = np.zeros(3, int)
    for op in flops.needed(graph, wanted):
        if op.type in kinds:
            # The filter's gradient has no examples: its other inputs have.
            examples = op.inputs[2 if op.type != "Conv2D" else 0].shape[0]
            counts[kinds.index(op.type)] += _batches(op) if rows is None else examples == rows
        elif op.type in ("While", "StatelessWhile"):
            body = graph._get_function(op.get_attr("body").name).graph
            counts += flops.turns(op) * _count(body, body.outputs + body.control_outputs, rows)
        # Neither hides passes from this count, nor keeps a loop's tensors for a gradient.
        assert "PartitionedCall" not in op.type and "TensorList" not in op.type
    return counts


def _batches(op):
    """How many batches a convolution runs over as one; 1 for gathered rows, of any number."""
    sides = [tensor.shape[0] for tensor in op.inputs if tensor.shape.rank == 4]
    return max((side // BATCH for side in sides if side and side % BATCH == 0), default=1)


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
    # The same passes at ball scale, whatever is measured: another h, another norm.
    "soar at ball scale": (
        "soar",
        {"alpha": "ball", "measure": "cosine"},
        (2 * 5, 2 * 3 + 2 * 1, 2 * 4 + 2),
    ),
    "soar at ball scale from fgsm": (
        "soar",
        {"alpha": "ball", "measure": "relative", "init": "fgsm"},
        (2 * 5, 2 * 3 + 2 * 1, 2 * 4 + 2),
    ),
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
    "elle, adaptive": ("elle", {"adaptive": True}, (2 + 2 * 3 + 2, 2 + 3 + 1, 2 * 3 + 2)),
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


@pytest.mark.parametrize("name", ["fast", "n-fgsm", "gradalign", "elle"])
def test_the_alignment_takes_one_layers_input_gradient_and_no_pass(name):
    forward, by_input, by_kernel = passes(methods.get(name))
    assert passes(methods.get(name), align=True) == (forward, by_input + 1, by_kernel)


# With weight perturbation: once more all but the attack.
PERTURBED = {
    "standard": ({}, (2 * 2, 2 * 1, 2 * 2)),
    "adversarial": ({"steps": 3}, (2 * 3 + 2 * 2, 2 * 3 + 2 * 1, 2 * 2)),
    "qub": ({}, (2 + 2 * 4, 2 + 2 * 2, 2 * 4)),
    # The first pass over the images, which is the attack's too, counts for both.
    "trades": ({"steps": 3}, (2 * 3 + 2 * 4, 2 * 3 + 2 * 2, 2 * 4)),
}


@pytest.mark.parametrize("name", PERTURBED)
def test_passes_of_a_step_with_weight_perturbation(name):
    arguments, expected = PERTURBED[name]
    assert passes(methods.get(name, **arguments), awp=0.01) == expected


# Of every example, without recording: one attack step (f, i), the loss and its gradients at x'
# (f, i, k), the gradient at the second point (f, i). Of the gathered examples only, whose number no
# graph knows: at each point what is recorded in a step of all, as above.
SKIPPED = {
    "soar": ({}, (2 * 3, 2 * 3, 2), (2 * 4, 2 * 2 + 2 * 1, 2 * 4)),
    "soar without clip": (
        {"penalty_clipnorm": None},
        (2 * 3, 2 * 3, 2),
        (2 * 4, 2 * 2 + 2 * 1, 2 * 4),
    ),
    "soar from zero": ({"init": "zero"}, (2 * 2, 2 * 2, 2), (2 * 4, 2 * 2 + 2 * 1, 2 * 4)),
    "three directions": (
        {"num_directions": 3},
        (2 * 5, 2 * 5, 2),
        (2 * 8, 2 * 4 + 4 * 1, 2 * 8),
    ),
    # The loss has a pass of its own: f, and backward to the weights, k and i but the first's.
    "at ball scale": (
        {"alpha": "ball", "measure": "relative"},
        (2 * 3, 2 * 3, 2),
        (2 * 4, 2 * 2 + 2 * 1, 2 * 4),
    ),
    "another loss bent": (
        {"penalty_loss": "cross_entropy"},
        (2 * 4, 2 * 3 + 1, 2),
        (2 * 4, 2 * 2 + 2 * 1, 2 * 4),
    ),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_passes_of_a_step_that_skips_clipped_examples(case):
    arguments, everybody, unclipped = SKIPPED[case]
    graph = graph_of(methods.SOAR(**arguments), True)
    wanted = graph.outputs + graph.control_outputs
    whole = _count(graph, wanted, BATCH)
    assert tuple(whole) == everybody
    assert tuple(_count(graph, wanted) - whole) == unclipped


def test_a_step_that_chooses_its_way_is_traced_for_one_of_them():
    assert passes(methods.SOAR(), "auto") == passes(methods.SOAR(), True)


@pytest.mark.parametrize(("clip", "share"), [(1e-6, 0.0), ("middle", 0.5), (1e6, 1.0)])
def test_rows_that_pass_depend_on_the_share_of_unclipped_examples(clip, share):
    seen, net = [], network()
    original = net.call

    def call(inputs, **arguments):
        seen.append(inputs.shape[0])
        return original(inputs, **arguments)

    x, y = batch()
    if clip == "middle":
        keys = soar_tf.ops.random.example_keys(0, tf.range(BATCH), step=0, purpose="training")
        norms = (
            methods.SOAR()
            .terms(
                methods.Forward(net),
                tf.constant(x),
                tf.constant(y),
                keys=keys,
                loss_fn=soar_tf.ops.losses.cross_entropy,
            )
            .diagnostics["curvature_norm"]
        )
        clip = float(np.median(norms))
    net.call = call
    model = soar_tf.SOARModel(net, norm_clip=clip, skip_clipped=True)
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"], run_eagerly=True)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["unclipped"] == share
    # If all are clipped one stands in, since kernels may not take an empty batch.
    gathered = max(1, int(share * BATCH))
    assert seen == [BATCH] * 3 + [gathered] * 2


class _Counting(methods.Method):
    """Counts how often its objective is traced."""

    traces = 0

    def terms(self, forward, x, y, *, loss_fn, keys):
        _Counting.traces += 1
        logits = forward.training(x)
        return methods.Terms(loss_fn(y, logits), logits)


def test_fit_traces_the_step_once_and_never_again():
    # Keras alone traces again after a trace in which optimizer or metrics create variables.
    _Counting.traces = 0
    model = compiled(_Counting(), jit_compile=False)
    x, y = batch(10)
    model.fit(x, y, batch_size=4, epochs=2, validation_data=(x[:3], y[:3]), verbose=0)
    model.evaluate(x, y, batch_size=4, verbose=0)
    model.fit(x[:7], y[:7], batch_size=3, verbose=0)
    assert _Counting.traces == 1


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
