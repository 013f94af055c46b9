"""`skip_clipped`: the same step from the examples whose penalty has a gradient."""

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import soar_tf
from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.ops import random
from soar_tf.training import skipping
from soar_tf.training.losses import default_loss, per_example

SHAPE, CLASSES, BATCH, SEED = (5, 5, 1), 3, 8, 7
MIDDLE = 0.25  # a clip with some norms on either side
FILES = Path(__file__).parent / "files"


class Recorder(keras.optimizers.SGD):
    """Keeps the gradients that it is asked to apply, and applies them."""

    def apply_gradients(self, grads_and_vars):
        pairs = list(grads_and_vars)
        if tf.executing_eagerly():
            self.seen = np.concatenate([np.ravel(gradient.numpy()) for gradient, _ in pairs])
        return super().apply_gradients(pairs)


def network(*between, regularizer=None, activity=None):
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(
                4,
                3,
                activation="softplus",
                kernel_regularizer=regularizer,
                activity_regularizer=activity,
            ),
            *(layer() for layer in between),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


def data():
    generator = np.random.default_rng(5)
    x = generator.uniform(0, 1, (BATCH, *SHAPE)).astype("float32")
    return x, np.arange(BATCH) % CLASSES


def build(clip, **arguments):
    # A difference over so long a step that rounding does not matter.
    settings = {"epsilon": 0.1, "alpha": 0.3, "h_min": 0.3, "norm_clip": clip, **arguments}
    if (with_ := settings.pop("with_", None)) is not None:
        return methods.Sum([with_, methods.SOAR(**settings)])
    return methods.SOAR(**settings)


def clip_for(share, net, arguments):
    """A clip with no example, some, or all of the first step's below it."""
    x, y = data()
    keys = random.example_keys(SEED, tf.range(BATCH), step=0, purpose="training")
    found = (
        build(1e9, **arguments)
        .terms(
            methods.Forward(net),
            tf.constant(x),
            tf.constant(y),
            loss_fn=per_example(default_loss()),
            keys=keys,
        )
        .diagnostics
    )
    norms = found["curvature_norm"] / found["unclipped"]
    norms = np.sort(norms[np.isfinite(norms)].numpy())
    middle = len(norms) // 2
    return {
        "none": norms[0] / 2,
        "some": (norms[middle - 1] + norms[middle]) / 2,
        "all": 2 * norms[-1],
    }[share]


def step(skip, clip, variant, **compile_arguments):
    """The gradient that a step takes, its logs, and the network's statistics after it."""
    arguments = dict(variant)
    net = arguments.pop("network", network)()
    own = {k: arguments.pop(k) for k in ("micro_batch",) if k in arguments}
    sample_weight = arguments.pop("sample_weight", None)
    model = soar_tf.RobustModel(net, build(clip, **arguments), seed=SEED, skip_clipped=skip, **own)
    optimizer = Recorder(0.05)
    model.compile(optimizer, metrics=["accuracy"], **({"run_eagerly": True} | compile_arguments))
    before = [w.copy() for w in net.get_weights()]
    logs = model.train_on_batch(*data(), sample_weight=sample_weight, return_dict=True)
    moved = [np.ravel(b - a) for a, b in zip(before, net.get_weights(), strict=True)]
    gradient = optimizer.seen if model.run_eagerly else None
    return gradient, np.concatenate(moved), {k: float(v) for k, v in logs.items()}


def norm_layer():
    return layers.BatchNormalization(momentum=0.9)


def half():
    with_policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    net = network()
    for layer in net.layers:
        layer.dtype_policy = with_policy
    return net


L2 = keras.regularizers.L2
WEIGHTS = np.array([0.0, 1.0, 2.0, 0.5, 0.0, 1.5, 1.0, 3.0])
OF_THE_MODEL = ("network", "micro_batch", "sample_weight")
UNBOUND = {"penalty_clipnorm": None}
VARIANTS = {
    "default": {},
    "penalty gradient clipped": {"penalty_clipnorm": 0.01},
    "penalty gradient free": UNBOUND,
    "sample weights": {"sample_weight": WEIGHTS},
    "sample weights, free": {"sample_weight": WEIGHTS, **UNBOUND},
    "parts": {"micro_batch": 3},
    "parts, sample weights": {"micro_batch": 3, "sample_weight": WEIGHTS},
    "batchnorm": {"network": lambda: network(norm_layer)},
    "batchnorm, free": {"network": lambda: network(norm_layer), **UNBOUND},
    "dropout": {"network": lambda: network(lambda: layers.Dropout(0.4, seed=3))},
    "weight decay": {"network": lambda: network(regularizer=L2(0.3))},
    "weight decay, free": {"network": lambda: network(regularizer=L2(0.3)), **UNBOUND},
    "activity": {"network": lambda: network(regularizer=L2(0.3), activity=L2(0.1))},
    "half of the batch": {"penalty_fraction": 0.5},
    "every other step": {"penalty_every": 2},
    "exact product": {"hvp": "exact"},
    "directions": {"num_directions": 3, "estimator": "root_mean_square", "full_vector": True},
    "l2, from zero": {"norm": "l2", "init": "zero"},
    "other losses": {"inner_loss": "dlr", "penalty_loss": "margin"},
    "half precision": {"network": half},
    "half precision, weights": {"network": half, "sample_weight": WEIGHTS},
    "sum": {"with_": methods.Adversarial(epsilon=0.1, steps=2)},
    "schedule": {"lambda_": "ramp(0.5, 1, steps=4)"},
}
CASES = [
    pytest.param(
        name,
        share,
        id=f"{name}-{share}",
        marks=() if share == "some" or position < 3 else pytest.mark.slow,
    )
    for position, name in enumerate(VARIANTS)
    for share in ("none", "some", "all")
]


@pytest.mark.parametrize(("name", "share"), CASES)
def test_the_whole_gradient_is_that_of_the_plain_path(name, share):
    variant = VARIANTS[name]
    method = {k: v for k, v in variant.items() if k not in OF_THE_MODEL}
    clip = clip_for(share, variant.get("network", network)(), method)
    plain, skipping = (step(skip, clip, variant) for skip in (False, True))
    # A step that is due counts for the others.
    found = plain[2]["unclipped"] / variant.get("penalty_every", 1)
    assert {"none": found == 0.0, "some": 0.0 < found < 1.0, "all": found == 1.0}[share]
    size = np.linalg.norm(plain[0])
    # Float32: the sums over the examples have another order.
    assert size > 1e-3 and np.linalg.norm(skipping[0] - plain[0]) < 2e-5 * size
    # With it, what a step moves beside the weights: BatchNorm's statistics.
    np.testing.assert_allclose(skipping[1], plain[1], atol=2e-6)
    assert skipping[2] == pytest.approx(plain[2], rel=1e-5)


def test_without_an_unclipped_example_the_gradient_is_the_losss():
    clip = clip_for("none", network(), {})
    skipping, loss_alone = step(True, clip, {}), step(True, clip, {"lambda_": 0.0})
    np.testing.assert_array_equal(skipping[0], loss_alone[0])
    assert np.linalg.norm(step(True, 1e9, {})[0] - loss_alone[0]) > 1e-3


GRAPHS = {
    "weights": {
        "sample_weight": WEIGHTS,
        "network": lambda: network(norm_layer),
        "penalty_fraction": 0.5,
    },
    "parts": {
        "micro_batch": 3,
        "penalty_fraction": 0.5,
        "sample_weight": WEIGHTS,
        "network": lambda: network(norm_layer, lambda: layers.Dropout(0.4, seed=3)),
    },
    "sum": {
        "with_": methods.Adversarial(epsilon=0.1, steps=2),
        "network": lambda: network(regularizer=L2(0.3), activity=L2(0.1)),
        "penalty_every": 2,
    },
}


@pytest.mark.parametrize(
    "name", ["weights", *(pytest.param(name, marks=pytest.mark.slow) for name in ("parts", "sum"))]
)
def test_a_graph_with_both_ways_gives_the_plain_step(name):
    # Dropout's masks in a part do not depend on the way.
    plain = step(False, MIDDLE, GRAPHS[name])
    chosen = step("auto", MIDDLE, GRAPHS[name], run_eagerly=False, jit_compile=False)
    assert 0.0 < plain[2]["unclipped"] < 2.0
    assert chosen[2] == pytest.approx(plain[2], rel=1e-4)
    assert np.linalg.norm(chosen[1] - plain[1]) < 1e-4 * np.linalg.norm(plain[1])


def soar_model(skip, clip=MIDDLE, **arguments):
    model = soar_tf.SOARModel(
        network(), epsilon=0.1, norm_clip=clip, seed=SEED, skip_clipped=skip, **arguments
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), run_eagerly=True)
    return model


def steps(model, count):
    for _ in range(count):
        model.train_on_batch(*data())
    return model


def weights(model):
    return np.concatenate([np.ravel(w) for w in model.network.get_weights()])


def test_a_run_may_change_its_way_when_it_is_resumed(tmp_path):
    start = weights(soar_model(False))
    unbroken = weights(steps(soar_model(False), 4))
    for first, then in [(False, True), (True, False)]:
        path = tmp_path / f"{first}.weights.h5"
        steps(soar_model(first), 2).save_weights(path)
        model = soar_model(then)
        model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
        resumed = weights(steps(model, 2))
        apart = np.linalg.norm(resumed - unbroken)
        assert apart < 1e-4 * np.linalg.norm(unbroken - start)


def test_the_way_follows_the_share_and_a_resumed_run_takes_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(skipping, "INTERVAL", 3)
    path = tmp_path / "model.weights.h5"

    def fresh():
        model = soar_model("auto", clip=1e6)  # nobody is clipped
        model.optimizer.build(model.trainable_variables)
        model._skipping.share.assign(0.55)
        return model

    model, ways = fresh(), []
    for count in range(5):
        ways.append(model.skips_clipped)
        steps(model, 1)
        assert model._skipping.way is ways[-1]
        if count == 1:
            model.save_weights(path)
    # The share's memory: .55, then .9 * .55 + .1 = .595, then .6355, over the limit between
    # choices.
    assert ways == [True, True, True, False, False]
    resumed = fresh()
    resumed.load_weights(path)
    assert float(resumed._skipping.share.value) > skipping.LARGEST_SHARE
    assert resumed.skips_clipped is True
    np.testing.assert_array_equal(weights(steps(resumed, 3)), weights(model))
    assert resumed.skips_clipped is False


def test_a_file_from_when_each_step_chose_takes_the_way_of_its_share():
    ways = {}
    for share in (0.5, 0.7):
        for setting in ("auto", True, False):
            state = skipping.Skipping(setting)
            state.load({"unclipped_share": np.float32(share)})
            ways[share, setting] = state.next_way(step=7)
    assert ways[0.5, "auto"] is True and ways[0.7, "auto"] is False
    assert all(ways[share, setting] is setting for share in (0.5, 0.7) for setting in (True, False))


def test_a_choice_falls_where_a_call_of_several_steps_passes_a_multiple():
    state = skipping.Skipping()
    state.share.assign(1.0)
    steps_done = range(0, 4 * skipping.INTERVAL, 7)
    chosen = [step for step in steps_done if state.next_way(step, 7) is not state.way]
    assert chosen == [0, *(-(-k * skipping.INTERVAL // 7) * 7 for k in (1, 2, 3))]


def test_each_way_is_traced_when_it_is_first_taken(monkeypatch):
    monkeypatch.setattr(skipping, "INTERVAL", 2)
    monkeypatch.setattr(skipping, "LARGEST_SHARE", 0.1)
    model, traced = soar_model("auto", clip=1e6), []
    # Nor a second time for the variables of the optimizer and the metrics, which are not made yet.
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), metrics=["accuracy"], jit_compile=False)
    original = model.train_step

    def train_step(batch):
        traced.append(model._skipping.way)
        return original(batch)

    model.train_step = train_step
    x, y = data()
    seen = []
    after = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(len(traced))
    )
    model.fit(x, y, batch_size=2, epochs=2, callbacks=[after], verbose=0)
    assert seen == [1, 1, 2, 2, 2, 2, 2, 2] and traced == [True, False]
    model.fit(x, y, batch_size=2, epochs=1, verbose=0)
    assert traced == [True, False]


def test_files_from_before_there_was_a_choice_resume(tmp_path):
    """`files/` has what the code before `skip_clipped` wrote after three steps, and its fourth."""
    path = FILES / "before_diagnostics.keras"
    expected = np.load(FILES / "before_diagnostics_next_step.npz")
    generator = np.random.default_rng(5)
    x = generator.uniform(0, 1, (8, 4, 4, 1)).astype("float32"), np.arange(8) % 3
    model = keras.saving.load_model(path)
    model.run_eagerly = True
    with zipfile.ZipFile(path) as archive:
        (tmp_path / "old.weights.h5").write_bytes(archive.read("model.weights.h5"))
    for _ in range(2):
        # A checkpoint is this part of the file.
        model.load_weights(tmp_path / "old.weights.h5")
        assert int(model.step) == 3
        model.train_on_batch(*x)
        for got, name in zip(model.network.get_weights(), expected.files, strict=True):
            np.testing.assert_allclose(got, expected[name], rtol=1e-4, atol=1e-6)


def test_fit_logs_the_share_and_the_norm_and_validation_does_not():
    model = soar_model("auto")
    history = model.fit(*data(), epochs=2, batch_size=4, validation_data=data(), verbose=0).history
    assert set(history) == {"loss", "penalty", "unclipped", "curvature_norm", "val_loss"}
    assert model.skips_clipped is True
    assert 0.0 < history["unclipped"][0] < 1.0 and history["curvature_norm"][0] > 0.1
    batch = soar_tf.SOARModel(network(), norm_clip_scope="batch")
    assert batch.method.diagnostics == ("curvature_norm",) and batch.skips_clipped is None
    assert soar_tf.methods.SOAR(norm_clip=None).diagnostics == ()
    assert soar_tf.methods.Sum(["adversarial", "soar"]).clips_examples


def test_diagnostics_are_means_over_the_examples():
    x, y = data()
    keys = random.example_keys(SEED, tf.range(BATCH), step=0, purpose="training")
    soar = methods.SOAR(0.1, norm_clip=MIDDLE)
    terms = soar.terms(
        methods.Forward(network()),
        tf.constant(x),
        tf.constant(y),
        loss_fn=per_example(default_loss()),
        keys=keys,
    )
    norms = terms.diagnostics["curvature_norm"].numpy()
    factor = (np.prod(SHAPE) * 0.1**2 + 1) / 2
    np.testing.assert_allclose(terms.penalty, factor * np.minimum(norms, MIDDLE), rtol=1e-5)
    np.testing.assert_array_equal(terms.diagnostics["unclipped"], norms <= MIDDLE)
    for size in (None, 3):
        model = soar_tf.RobustModel(network(), soar, seed=SEED, micro_batch=size)
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        logs = model.train_on_batch(x, y, return_dict=True)
        assert logs["curvature_norm"] == pytest.approx(norms.mean(), rel=1e-3)
        assert logs["unclipped"] == pytest.approx((norms <= MIDDLE).mean())


def test_the_setting_is_saved_and_checked(tmp_path):
    model = steps(soar_model(True), 1)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").skips_clipped is True
    with pytest.raises(InputError, match="`skip_clipped` must be 'auto', True or False. Rec.*sure"):
        soar_tf.SOARModel(network(), skip_clipped="sure")
    with pytest.raises(InputError, match="`skip_clipped` must be 'auto' or False.*XLA"):
        model.compile("sgd", jit_compile=True)
    compiled = soar_tf.SOARModel(network())
    compiled.compile("sgd", jit_compile=True)
    assert compiled.skips_clipped is False
