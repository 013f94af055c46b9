"""The penalty on a part of the batch, and in some steps only."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import BATCH, keys, network, terms, x, y

import soar_tf
from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.methods import regularizer
from soar_tf.ops import random
from soar_tf.training import losses

PENALISING = [
    name for name, cls in methods.ALL_OBJECTS.items() if issubclass(cls, methods.Regularizer)
]
every_regularizer = pytest.mark.parametrize("name", PENALISING)


def build(name, **arguments):
    cls = methods.ALL_OBJECTS[name]
    takes = soar_tf.registry.argument_names(cls)
    wanted = {"steps": 2, "epsilon": 0.1, **arguments}
    return methods.get(name, **{k: v for k, v in wanted.items() if k in takes})


@pytest.mark.parametrize(("batch", "fraction"), [(8, 0.25), (10, 0.3), (7, 0.5), (1, 0.1), (5, 1)])
def test_one_of_each_run_and_each_stands_for_its_run(batch, fraction):
    rows, counts = regularizer.choose(keys(batch), fraction)
    if fraction == 1:
        assert rows is None
        return
    n = int(np.ceil(fraction * batch))
    assert len(rows) == n and np.sum(counts) == batch
    # Runs written down independently: example p belongs to run floor(p n / B).
    assert [p * n // batch for p in rows.numpy()] == list(range(n))
    sizes = np.bincount([p * n // batch for p in range(batch)])
    np.testing.assert_array_equal(counts, sizes)


def test_every_example_is_drawn_equally_often():
    rows, _ = regularizer.choose(keys(1600), 0.25)
    frequencies = np.bincount(rows.numpy() % 4, minlength=4) / 400
    # Standard deviation sqrt(.25 * .75 / 400) = .022.
    np.testing.assert_allclose(frequencies, 0.25, atol=0.09)


def test_halves_of_a_batch_draw_what_the_whole_batch_draws():
    whole = regularizer.choose(keys(16), 0.25)[0].numpy()
    halves = [regularizer.choose(keys(16)[part], 0.25)[0] for part in (slice(8), slice(8, 16))]
    np.testing.assert_array_equal(whole, np.concatenate([halves[0], halves[1] + 8]))


@every_regularizer
def test_a_part_has_the_whole_batchs_penalties_times_their_counts(name):
    whole = terms(build(name))
    part = terms(build(name, penalty_fraction=0.5))
    rows, counts = regularizer.choose(keys(), 0.5)
    expected = np.zeros(BATCH)
    expected[rows] = counts * tf.gather(whole.penalty, rows)
    np.testing.assert_allclose(part.penalty, expected, rtol=1e-3)
    np.testing.assert_allclose(part.loss, whole.loss, rtol=1e-5)
    np.testing.assert_allclose(part.logits, whole.logits, rtol=1e-5)


@every_regularizer
def test_every_third_step_has_three_times_the_penalty(name):
    whole = terms(build(name))
    method = build(name, penalty_every=3)
    for step, factor in [(0, 3.0), (1, 0.0), (2, 0.0), (3, 3.0)]:
        got = method.terms(
            methods.Forward(network(), step=step),
            tf.constant(x, tf.float32),
            tf.constant(y),
            loss_fn=losses.per_example(losses.default_loss()),
            keys=keys(),
        )
        np.testing.assert_allclose(got.penalty, factor * whole.penalty, rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(got.loss, whole.loss, rtol=1e-5)


def small_network(batchnorm=False):
    keras.utils.set_random_seed(2)
    layers = [keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 3, activation="softplus")]
    if batchnorm:
        layers.append(keras.layers.BatchNormalization())
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(3)])


def images(count=8):
    generator = np.random.default_rng(5)
    return generator.uniform(0, 1, (count, 4, 4, 1)).astype("float32"), np.arange(count) % 3


@pytest.mark.parametrize(
    ("xla", "batchnorm"),
    [(False, True), pytest.param(True, False, marks=pytest.mark.slow)],
    ids=["graph", "xla"],
)
def test_a_part_in_some_steps_trains_as_it_does_eagerly(xla, batchnorm):
    results = []
    for arguments in ({"run_eagerly": True}, {"jit_compile": xla}):
        method = methods.SOAR(0.1, lambda_=0.1, penalty_fraction=0.5, penalty_every=2)
        model = soar_tf.RobustModel(small_network(batchnorm), method, seed=3)
        model.compile(keras.optimizers.SGD(0.05), **arguments)
        logs = [model.train_on_batch(*images(), return_dict=True) for _ in range(4)]
        results.append((model.network.get_weights(), [log["loss"] for log in logs]))
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-3)
    for first, second in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-5)


def test_the_train_step_counts_its_steps():
    x, y = images()
    model = soar_tf.RobustModel(small_network(), methods.Jacobian(penalty_every=3))
    model.compile(keras.optimizers.SGD(0.01))
    penalties = model.fit(x, y, batch_size=8, epochs=4, verbose=0).history["penalty"]
    assert [value > 0 for value in penalties] == [True, False, False, True]


def test_the_gradient_of_a_part_is_that_of_its_counted_penalties():
    """One step of SGD against float64 differences would repeat SOAR's own test; here the engine's
    step with a part equals a step whose sample weights pick the same examples, and count them."""
    rows, counts = regularizer.choose(
        random.example_keys(3, tf.range(8), step=0, purpose="training"), 0.25
    )
    weights = np.zeros(8)
    weights[rows.numpy()] = counts
    x, y = images()
    steps = []
    for fraction, sample_weight in ((0.25, None), (1.0, weights)):
        # A loss that has no gradient leaves the penalty's alone.
        model = soar_tf.RobustModel(
            small_network(), methods.Jacobian(1.0, penalty_fraction=fraction), seed=3
        )
        model.compile(
            keras.optimizers.SGD(0.1),
            loss=lambda y, z: 0.0 * tf.reduce_sum(z, axis=-1),
            run_eagerly=True,
        )
        model.train_on_batch(x, y, sample_weight=sample_weight)
        steps.append(model.network.get_weights())
    for first, second in zip(*steps, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-7)
    assert np.abs(steps[0][0] - small_network().get_weights()[0]).max() > 1e-4


def convolution_work(method):
    """The multiplications of all convolutions that a train step's effects need."""
    net = soar_tf.networks.cnn4(input_shape=(16, 16, 3), num_classes=3, width=0.25)
    model = soar_tf.RobustModel(net, method, skip_clipped=False)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    data = (tf.zeros((8, 16, 16, 3)), tf.zeros((8,), tf.int32))
    step = tf.function(model.train_step, autograph=False).get_concrete_function(data)
    reached, pending = set(), [op for op in step.graph.get_operations() if "Assign" in op.type]
    while pending:
        op = pending.pop()
        if op not in reached:
            reached.add(op)
            pending += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    # The shapes of (what the filter slides into, the filter) of each kind of operation.
    kinds = {
        "Conv2D": lambda op: (op.outputs[0], op.inputs[1]),
        "Conv2DBackpropInput": lambda op: (op.inputs[2], op.inputs[1]),
        "Conv2DBackpropFilter": lambda op: (op.inputs[2], op.outputs[0]),
    }
    work = 0
    for op in reached:
        if op.type in kinds:
            image, kernel = (tensor.shape for tensor in kinds[op.type](op))
            work += np.prod(image) * np.prod(kernel[:3])
    return work


def test_a_quarter_of_the_penalty_costs_at_most_2_8_standard_steps():
    standard = convolution_work(methods.Standard())
    quarter = convolution_work(methods.SOAR(penalty_fraction=0.25)) / standard
    assert quarter <= 2.8, quarter


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty_fraction": 0}, "`penalty_fraction` must be > 0 and <= 1. Received: 0"),
        ({"penalty_fraction": 1.5}, "<= 1"),
        ({"penalty_every": 0}, "`penalty_every` must be >= 1"),
        ({"penalty_every": 1.5}, "integer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        methods.SOAR(**arguments)
