"""`micro_batch`: the same step in parts."""

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf import methods, registry
from soar_tf.errors import InputError
from soar_tf.training import micro_batches

SHAPE, CLASSES, BATCH = (5, 5, 1), 3, 8


def network(regularizer=None, **dense):
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(3, 3, activation="softplus", kernel_regularizer=regularizer),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, **dense),
        ]
    )


def data(count=BATCH):
    generator = np.random.default_rng(5)
    x = generator.uniform(0, 1, (count, *SHAPE)).astype("float32")
    return x, np.arange(count) % CLASSES


def build(name):
    takes = registry.argument_names(methods.ALL_OBJECTS[name])
    wanted = {"steps": 2, "epsilon": 0.1}
    return methods.get(name, **{k: v for k, v in wanted.items() if k in takes})


def train(method, micro_batch, *, net=None, sample_weight=None, steps=2, **compile_arguments):
    """The last step's logs and how far the weights have moved, one vector."""
    net = net or network()
    before = [w.copy() for w in net.get_weights()]
    model = soar_tf.RobustModel(net, method, seed=7, micro_batch=micro_batch)
    model.compile(keras.optimizers.SGD(0.05), metrics=["accuracy"], **compile_arguments)
    x, y = data()
    for _ in range(steps):
        logs = model.train_on_batch(x, y, sample_weight=sample_weight, return_dict=True)
    moved = [np.ravel(new - old) for new, old in zip(net.get_weights(), before, strict=True)]
    return {k: float(v) for k, v in logs.items()}, np.concatenate(moved)


def assert_same_step(first, second, tolerance=1e-3):
    assert first[0] == pytest.approx(second[0], rel=tolerance)
    size = np.linalg.norm(first[1])
    assert size > 1e-4 and np.linalg.norm(second[1] - first[1]) < tolerance * size


@pytest.mark.parametrize("name", methods.ALL_OBJECTS)
def test_parts_of_3_give_the_step_of_the_batch(name):
    whole, parts = (train(build(name), size, steps=1, run_eagerly=True) for size in (None, 3))
    # LLR's inner Adam takes the sign of differences that rounding alone decides.
    assert_same_step(whole, parts, tolerance=2e-2 if name == "llr" else 1e-3)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_holds_in_a_graph(jit_compile):
    soar = methods.get("soar", epsilon=0.1, penalty_clipnorm=0.01)
    whole = train(soar, None, steps=1, run_eagerly=True)
    assert_same_step(whole, train(soar, 3, steps=1, jit_compile=jit_compile))


def test_the_accumulated_penalty_gradient_is_clipped_not_that_of_a_part():
    # A part's gradient, an eighth of its examples' mean, is shorter than the limit: clipping the
    # parts would change nothing.
    eager = {"steps": 1, "run_eagerly": True}
    free = train(
        methods.get("soar", epsilon=0.1, penalty_clipnorm=None, norm_clip=None), 1, **eager
    )
    bound = methods.get("soar", epsilon=0.1, penalty_clipnorm=0.05, norm_clip=None)
    whole, parts = train(bound, None, **eager), train(bound, 1, **eager)
    assert_same_step(whole, parts)
    assert np.linalg.norm(parts[1] - free[1]) > 0.01 * np.linalg.norm(free[1])


def test_partial_batches_in_fit():
    x, y = data(7)
    results = []
    for size in (None, 2):
        net = network()
        model = soar_tf.RobustModel(net, build("gradient-norm"), micro_batch=size)
        model.compile(keras.optimizers.SGD(0.05), metrics=["accuracy"])
        history = model.fit(x, y, batch_size=5, epochs=2, shuffle=False, verbose=0).history
        results.append(({k: v[-1] for k, v in history.items()}, net.get_weights()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-3)
    for first, second in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(second, first, atol=2e-5)


@pytest.mark.parametrize("clipnorm", [None, 0.05])
def test_sample_weights_and_regularizers_count_as_in_the_whole_batch(clipnorm):
    soar = methods.get("soar", epsilon=0.1, penalty_clipnorm=clipnorm)
    weights = np.linspace(0, 2, BATCH)
    for sample_weight in (weights, None):
        results = []
        for size in (None, 3):
            l2 = keras.regularizers.L2
            net = network(l2(0.3), activity_regularizer=l2(0.1))
            results.append(
                train(soar, size, net=net, sample_weight=sample_weight, steps=1, run_eagerly=True)
            )
        assert_same_step(*results)


def test_every_part_updates_batchnorm():
    x, y = data()
    net = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    model = soar_tf.RobustModel(net, "standard", micro_batch=4)
    model.compile(keras.optimizers.SGD(0.0))
    model.train_on_batch(x, y)
    expected = 0.0
    for part in (x[:4], x[4:]):
        expected = 0.9 * expected + 0.1 * part.mean()
    assert net.layers[0].moving_mean.numpy() == pytest.approx(expected, rel=1e-5)


def test_it_is_saved(tmp_path):
    model = soar_tf.SOARModel(network(), micro_batch=4)
    model.compile("sgd")
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").micro_batch == 4


def test_bad_values_are_refused():
    with pytest.raises(InputError, match="micro_batch"):
        soar_tf.RobustModel(network(), "standard", micro_batch=0)
    coupled = {"norm_clip_scope": "batch"}
    assert soar_tf.SOARModel(network(), **coupled).method.couples_examples
    with pytest.raises(InputError, match="`micro_batch` must be None.*micro_batch=2, replicas=1"):
        soar_tf.SOARModel(network(), micro_batch=2, **coupled)
    member = {"method": "soar", **coupled}
    with pytest.raises(InputError, match="`micro_batch` must be None"):
        soar_tf.RobustModel(network(), soar_tf.methods.Sum(["standard", member]), micro_batch=2)
    model = soar_tf.RobustModel(network(), "standard", micro_batch=2)
    model.compile("sgd", jit_compile=True)
    x, y = data(7)
    with pytest.raises(InputError, match="drop_remainder"):
        model.fit(x, y, batch_size=4, verbose=0)


def test_the_command_line_trains_in_parts(run_cli, tmp_path, monkeypatch):
    sizes, original = [], micro_batches.accumulate

    def accumulate(part_of, tensors, size):
        sizes.append(size)
        return original(part_of, tensors, size)

    monkeypatch.setattr(micro_batches, "accumulate", accumulate)
    run_cli(
        "train",
        "--method",
        "standard",
        "--dataset",
        "digits",
        "--network",
        "mlp",
        "--epochs",
        1,
        "--network-arg",
        "width=0.1",
        "--limit",
        40,
        "--batch-size",
        16,
        "--micro-batch",
        6,
        "--verbose",
        0,
        "--evaluate",
        0,
        "--workdir",
        tmp_path / "run",
    )
    assert set(sizes) == {6}
    assert "micro_batch = 6" in (tmp_path / "run" / "config.toml").read_text()
