"""`check_second_order`: verdicts for layers whose second-order gradients are known."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from soar_tf.errors import InputError
from soar_tf.models import networks
from soar_tf.second_order import known_layers as known
from soar_tf.second_order.check import LayerReport, SecondOrderReport, check_second_order

# How to build the layers that need arguments; the others take none.
ARGUMENTS = {
    "Activation": ("gelu",),
    "AdaptiveAveragePooling1D": (3,),
    "AdaptiveAveragePooling2D": (3,),
    "AdaptiveAveragePooling3D": (2,),
    "AdaptiveMaxPooling1D": (3,),
    "AdaptiveMaxPooling2D": (3,),
    "AdaptiveMaxPooling3D": (2,),
    "AlphaDropout": (0.2,),
    "AveragePooling1D": (2,),
    "AveragePooling2D": (2,),
    "AveragePooling3D": (2,),
    "Conv1D": (3, 2),
    "Conv1DTranspose": (3, 2),
    "Conv2D": (3, 2),
    "Conv2DTranspose": (3, 2),
    "Conv3D": (3, 2),
    "Conv3DTranspose": (3, 2),
    "Dense": (3, "tanh"),
    "DepthwiseConv1D": (2,),
    "DepthwiseConv2D": (2,),
    "Dot": (2,),
    "Dropout": (0.2,),
    "EinsumDense": ("abc,cd->abd", (None, 3)),
    "GRU": (3,),
    "GroupNormalization": (2,),
    "GaussianDropout": (0.2,),
    "GaussianNoise": (0.2,),
    "GroupedQueryAttention": (2, 2, 1),
    "LSTM": (3,),
    "MultiHeadAttention": (2, 2),
    "Permute": ((2, 1),),
    "RandomBrightness": (0.2,),
    "RandomContrast": (0.2,),
    "RandomHue": (0.2, (0, 1)),
    "RandomRotation": (0.2,),
    "RandomSaturation": (0.2, (0, 1)),
    "RandomSharpness": (0.2, (0, 1)),
    "RandomShear": (0.2, 0.2),
    "RandomTranslation": (0.2, 0.2),
    "RandomZoom": (0.2,),
    "RepeatVector": (2,),
    "Rescaling": (2.0,),
    "Reshape": ((4, 6),),
    "Resizing": (4, 9),
    "SeparableConv1D": (3, 2),
    "SeparableConv2D": (3, 2),
    "SimpleRNN": (3,),
    "SpatialDropout1D": (0.2,),
    "SpatialDropout2D": (0.2,),
    "SpatialDropout3D": (0.2,),
}
PAIRS = "Add Attention AdditiveAttention Average Concatenate Dot Maximum Minimum Multiply Subtract"
SELF_ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention")


def _rank(name):
    for dimensions in (1, 2, 3):
        if f"{dimensions}D" in name:
            return dimensions + 2
    if name.startswith(("Random", "Resizing")):
        return 4
    return 2 if name in ("Dense", "RepeatVector") else 3


def _around(layer, shape):
    """A network that applies `layer`, or combines two dense layers' outputs by it."""
    name = type(layer).__name__
    inputs = keras.Input(shape)
    if name in PAIRS.split():
        outputs = layer([layers.Dense(4)(inputs), layers.Dense(4)(inputs)])
    elif name in SELF_ATTENTION:
        outputs = layer(inputs, inputs)
    else:
        outputs = layer(inputs)
    return keras.Model(inputs, outputs)


def _row(network, name, **arguments):
    rows = {row.name: row for row in check_second_order(network, **arguments).layers}
    return rows[name]


def _of_layer(layer, shape=(6, 6, 3), **arguments):
    return _row(_around(layer, shape), layer.name, **arguments)


CLASSES = sorted(known.EXACT | known.REPLACED | known.INFERENCE, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_table_of_known_classes_is_what_is_measured(cls):
    name = cls.__name__
    layer = cls(*ARGUMENTS.get(name, ()))
    shape = {2: (6,), 3: (6, 4), 4: (6, 6, 3), 5: (4, 4, 4, 2)}[_rank(name)]
    network = _around(layer, shape)
    measured = _row(network, layer.name)
    assert measured.verdict == _row(network, layer.name, quick=True).verdict
    assert measured.verdict in ("exact", "replaced", "inference")


@pytest.mark.parametrize("activation", sorted(known.ACTIVATIONS, key=lambda f: f.__name__))
def test_known_activations_are_exact(activation):
    row = _of_layer(layers.Activation(activation), (7,))
    assert row.verdict == "exact"
    assert row.relative_error < 1e-4


@pytest.mark.parametrize(
    ("build", "verdict"),
    [
        (lambda: layers.MaxPooling2D(3, 2, "same"), "replaced"),
        (lambda: layers.UpSampling2D(2), "exact"),
        (lambda: layers.UpSampling2D(2, interpolation="bilinear"), "replaced"),
        (lambda: layers.UpSampling2D(2, interpolation="bicubic"), "replaced"),
        (lambda: layers.Resizing(4, 9, interpolation="bicubic"), "replaced"),
        (lambda: layers.Resizing(4, 9, crop_to_aspect_ratio=True), "replaced"),
        (lambda: layers.Resizing(4, 9, pad_to_aspect_ratio=True), "replaced"),
        (lambda: layers.SpectralNormalization(layers.Conv2D(2, 3)), "inference"),
        (lambda: layers.BatchNormalization(synchronized=True), "inference"),
        (lambda: layers.Conv2D(2, 3, strides=2, padding="same", activation="relu"), "exact"),
        (lambda: layers.Conv2D(2, 3, dilation_rate=2, activation="gelu"), "exact"),
        (lambda: layers.Activation("sparsemax"), "exact"),
    ],
)
def test_variants_of_layers(build, verdict):
    layer = build()
    row = _of_layer(layer)
    assert row.verdict == verdict
    assert row.relative_error < 1e-4


def test_attention_with_dropout_is_exact_in_inference_mode():
    for layer in (layers.MultiHeadAttention(2, 3, dropout=0.3), layers.GRU(3, dropout=0.3)):
        measured = _of_layer(layer, (5, 4))
        assert measured.verdict == _of_layer(layer, (5, 4), quick=True).verdict == "inference"


def test_recurrent_layers_on_a_gpu_need_use_cudnn_false(monkeypatch):
    layer = layers.Bidirectional(layers.LSTM(3))
    network = _around(layer, (5, 4))
    assert "use_cudnn=False" in _row(network, layer.name).note
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    report = check_second_order(network, quick=True)
    with pytest.raises(InputError, match="build it with use_cudnn=False"):
        report.raise_if_wrong()
    plain = _around(layers.LSTM(3, use_cudnn=False), (5, 4))
    assert check_second_order(plain, quick=True).ok


LAMBDAS = [
    (lambda x: tf.nn.softsign(x), "missing", "SoftsignGrad"),
    (lambda x: tf.nn.local_response_normalization(x), "missing", "LRNGrad"),
    (
        lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")[0],
        "missing",
        "MaxPoolGradWithArgmax",
    ),
    (lambda x: tf.stop_gradient(x) * x, "wrong", known.STOPS),
    (lambda x: x + tf.stop_gradient(tf.round(x) - x), "wrong", known.STOPS),
    (lambda x: x * tf.stop_gradient(tf.ones_like(x)), "exact", ""),
    (
        lambda x: tf.raw_ops.MaxPool(
            input=x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME"
        ),
        "wrong",
        known.CUSTOM_MAX_POOL,
    ),
    (lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"), "replaced", "tf.nn.max_pool"),
    (lambda x: tf.cast(tf.cast(x, "float32") ** 3, x.dtype), "exact", ""),
    (lambda x: tf.cast(x, "float32") * tf.constant(2.0), "exact", ""),
    (lambda x: tf.round(x), "exact", "no gradient passes it"),
]


@pytest.mark.parametrize("case", range(len(LAMBDAS)))
def test_functions_of_ones_own(case):
    function, verdict, note = LAMBDAS[case]
    layer = layers.Lambda(function)
    row = _of_layer(layer, (6, 6, 4))
    assert (row.verdict, row.note) == (verdict, note)


def test_own_max_pooling_is_right_without_xla():
    layer = layers.Lambda(
        lambda x: tf.raw_ops.MaxPool(
            input=x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME"
        )
    )
    assert _of_layer(layer, xla=False).verdict == "exact"


def test_random_transformation_that_acts_in_inference_mode_is_measured():
    class Always(layers.Layer):
        def __init__(self):
            super().__init__()
            self.shift = layers.RandomTranslation(0.2, 0.2, seed=1)

        def call(self, x):
            return self.shift(x, training=True)

    layer = Always()
    rows = check_second_order(_around(layer, (6, 6, 3))).layers
    assert not all(row.verdict in ("exact", "inference", "unchecked") for row in rows)


class Block(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.convolution = layers.Conv2D(3, 3, padding="same", name="convolution")
        self.unused = layers.Dense(2, name="unused")
        self.function = function

    def call(self, x):
        return x + self.function(self.convolution(x))


class Subclassed(keras.Model):
    def __init__(self, function=tf.nn.relu):
        super().__init__(name="subclassed")
        self.block = Block(function, name="block")
        self.pool = layers.MaxPooling2D(2, name="pool")
        self.head = keras.Sequential([layers.Flatten(), layers.Dense(3, name="logits")])

    def call(self, x, training=None):
        return tf.nn.tanh(self.head(self.pool(self.block(x))))


def test_subclassed_models_and_the_code_around_their_layers():
    sample = np.random.default_rng(0).random((4, 6, 6, 3)).astype("float32")
    report = check_second_order(Subclassed(), sample=sample)
    verdicts = {row.name: row.verdict for row in report.layers}
    assert verdicts.pop("unused") == "unchecked"
    assert verdicts["convolution"] == verdicts["block"] == verdicts["logits"] == "exact"
    assert verdicts["pool"] == verdicts["subclassed"] == "replaced"
    # Measured in float64, which a sequential model inside must not round.
    assert max(row.relative_error or 0.0 for row in report.layers) < 1e-6
    assert report.ok


@pytest.mark.parametrize("quick", [False, True])
def test_wrong_code_between_layers_is_found(quick):
    network = Subclassed(lambda x: tf.stop_gradient(x) * x)
    sample = np.random.default_rng(0).random((4, 6, 6, 3)).astype("float32")
    report = check_second_order(network, sample=sample, quick=quick)
    rows = {row.name: row for row in report.layers}
    assert rows["block"].verdict == "wrong"
    assert rows["convolution"].verdict == "exact"
    assert rows["subclassed"].note == "contains 'block'"
    with pytest.raises(InputError, match=r"'block' .* wrong second-order gradient"):
        report.raise_if_wrong()


def test_functional_operations_nesting_and_shared_layers():
    shared = layers.Dense(4, activation="softsign", name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, layers.LayerNormalization(name="norm")])
    inputs = keras.Input((4,))
    x = keras.ops.softsign(inner(inputs)) + shared(inputs)
    network = keras.Model(inputs, layers.Dense(2, name="logits")(x))
    for quick in (False, True):
        rows = {
            row.layer_class: row.verdict for row in check_second_order(network, quick=quick).layers
        }
        assert rows == {
            "Dense softsign": "missing",
            "LayerNormalization": "replaced",
            "Softsign": "missing",
            "Add": "exact",
            "Dense": "exact",
        }


def test_embedding_of_pixels_leaves_no_input_gradient():
    inputs = keras.Input((4,))
    x = layers.Flatten()(layers.Embedding(8, 3, name="embedding")(inputs))
    network = keras.Model(inputs, layers.Dense(2)(x), name="tokens")
    report = check_second_order(network)
    assert {row.name: row.note for row in report.layers}["embedding"] == "no gradient passes it"
    with pytest.raises(InputError, match="'tokens' has no gradient with respect to its input"):
        report.raise_if_wrong()


def test_embedding_of_positions_is_exact():
    inputs = keras.Input((5, 3))
    positions = layers.Embedding(5, 3, name="positions")(np.arange(5)[None])
    network = keras.Model(inputs, layers.Dense(2)(inputs + positions))
    assert check_second_order(network).ok


def test_check_leaves_the_network_as_it_was():
    network = networks.resnet18((8, 8, 1), width=0.05)
    weights = network.get_weights()
    x = np.random.default_rng(0).random((2, 8, 8, 1)).astype("float32")
    before = network(x)
    assert check_second_order(network).ok
    for old, new in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(before, network(x))
    for layer in network._flatten_layers():
        assert "call" not in layer.__dict__
        assert layer.dtype_policy.name == "float32"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_half_precision_networks(policy):
    keras.config.set_dtype_policy(policy)
    try:
        network = networks.cnn2()
    finally:
        keras.config.set_dtype_policy("float32")
    report = check_second_order(network)
    assert report.ok
    assert max(row.relative_error for row in report.layers) < 1e-4


@pytest.mark.parametrize("name", ["cnn4", "resnet18"])
def test_quick_check_is_quick(name):
    network = networks.get(name, input_shape=(32, 32, 3), num_classes=10)
    start = time.perf_counter()
    report = check_second_order(network, quick=True)
    assert time.perf_counter() - start < 0.1
    assert report.ok
    assert not any(row.verdict == "unchecked" for row in report.layers)


def test_report_is_an_aligned_table():
    rows = (
        LayerReport("conv", "Conv2D", "exact", 3e-11),
        LayerReport("activation_3", "Activation softsign", "missing", None, "SoftsignGrad"),
    )
    report = SecondOrderReport(rows)
    *lines, summary = str(report).splitlines()
    assert len(lines) == 3
    assert summary == "1 of 2 layers cannot be trusted: activation_3."
    assert str(SecondOrderReport(rows[:1])).endswith("\n1 of 1 layers can be trusted.")
    unchecked = LayerReport("own", "Own", "unchecked")
    assert str(SecondOrderReport((unchecked,))).endswith("found wrong; unchecked: own.")
    assert (
        len(
            {
                line.index(word)
                for line, word in zip(lines, ("second", "exact", "missing"), strict=True)
            }
        )
        == 1
    )
    assert not report.ok
    with pytest.raises(InputError) as error:
        report.raise_if_wrong()
    assert str(error.value) == (
        "Layer 'activation_3' (Activation softsign) has no second-order gradient in TensorFlow "
        "(SoftsignGrad); use tanh instead, or train with a method that has no curvature penalty, "
        "such as 'adversarial'."
    )
    SecondOrderReport(rows[:1]).raise_if_wrong()


def test_errors_say_what_is_missing():
    with pytest.raises(InputError, match="Received: Dense"):
        check_second_order(layers.Dense(2))
    with pytest.raises(InputError, match="`sample` must be a batch"):
        check_second_order(Subclassed())
