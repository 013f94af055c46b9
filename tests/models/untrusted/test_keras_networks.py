"""Honest `.keras` files, and the process's own classes, are loaded as ever."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError
from soar_tf.models import networks, zoo
from soar_tf.models.untrusted import keras_configs, keras_files


class TestRegistered:
    """What the process itself has registered is its own affair."""

    @pytest.fixture
    def own(self):
        before = dict(keras.saving.get_custom_objects())

        @keras.saving.register_keras_serializable(package="mine")
        class Double(keras.layers.Layer):
            def call(self, x):
                return 2 * x

        @keras.saving.register_keras_serializable(package="mine")
        def cube(x):
            return x**3

        yield Double, cube
        keras.saving.get_custom_objects().clear()
        keras.saving.get_custom_objects().update(before)

    def save(self, path, own):
        layer, activation = own
        layers = [layer(name="double"), keras.layers.Lambda(activation), keras.layers.Flatten()]
        layers += [keras.layers.Dense(3, activation=activation)]
        keras.Sequential([keras.Input((4, 4, 1)), *layers]).save(path)

    def test_registered_layers_and_functions_are_loaded(self, own, tmp_path):
        self.save(tmp_path / "own.keras", own)
        assert keras_files.load(tmp_path / "own.keras", "it").get_layer("double")

    def test_they_are_refused_where_they_are_not_registered(self, own, tmp_path):
        self.save(tmp_path / "own.keras", own)
        keras.saving.get_custom_objects().clear()
        with pytest.raises(InputError, match="which is not registered in this process"):
            keras_files.load(tmp_path / "own.keras", "it")

    def test_a_scope_registers_too(self, tmp_path):
        class Half(keras.layers.Layer):
            def call(self, x):
                return x / 2

        model = keras.Sequential([keras.Input((4,)), Half(name="half"), keras.layers.Dense(3)])
        model.save(tmp_path / "own.keras")
        with keras.saving.custom_object_scope({"Half": Half}):
            assert keras_files.load(tmp_path / "own.keras", "it").get_layer("half")
        with pytest.raises(InputError, match="Half in layer 'half', which is not registered"):
            keras_files.load(tmp_path / "own.keras", "it")

    def test_models_of_this_package_are_loaded(self, tmp_path):
        model = soar_tf.SOARModel(networks.mlp(width=0.1), epsilon=0.1)
        model.compile("sgd", metrics=["accuracy"])
        model.save(tmp_path / "own.keras")
        assert isinstance(keras_files.load(tmp_path / "own.keras", "it"), soar_tf.SOARModel)


def images():
    return keras.Input((8, 8, 3))


def functional(build):
    inputs = images()
    return keras.Model(inputs, build(inputs))


def sequential(*layers):
    return keras.Sequential([images(), *layers])


def standardized(x):
    centered = x - keras.ops.mean(x, axis=(1, 2, 3), keepdims=True)
    deviation = keras.ops.std(x, axis=(1, 2, 3), keepdims=True)
    return centered / keras.ops.maximum(deviation, 1 / keras.ops.sqrt(192.0))


def compiled_inside():
    inner = sequential(keras.layers.Conv2D(2, 3))
    inner.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)],
    )
    model = functional(lambda x: keras.layers.Dense(2)(keras.layers.Flatten()(inner(x))))
    model.compile("sgd", "mse")
    return model


LAYERS, OPS = keras.layers, keras.ops
HONEST = {
    "operations": lambda: functional(standardized),
    "constants": lambda: functional(lambda x: (x - np.ones(3, "f4")) / tf.constant([1.0, 2, 3])),
    "slices": lambda: functional(lambda x: x[:, None, 1:3, ..., ::2]),
    "einsum": lambda: functional(lambda x: OPS.einsum("bhwc,bhwd->bcd", x, x)),
    "padding": lambda: functional(
        lambda x: OPS.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "constant", constant_values=1.0)
    ),
    "resizing": lambda: functional(lambda x: OPS.image.resize(x, (4, 4), interpolation="nearest")),
    "casts": lambda: functional(lambda x: OPS.cast(OPS.cast(x, "float16"), "float32")),
    "attention": lambda: functional(lambda x: LAYERS.MultiHeadAttention(2, 2)(x, x)),
    "branches": lambda: functional(
        lambda x: LAYERS.Average()([LAYERS.Dense(2)(x), LAYERS.Dense(2, name="b")(x)])
    ),
    "functions": lambda: sequential(
        LAYERS.Lambda(OPS.relu),
        LAYERS.Lambda(keras.activations.silu),
        LAYERS.Activation(OPS.tanh),
        LAYERS.Dense(3, activation=keras.activations.gelu),
    ),
    "wrappers": lambda: sequential(
        LAYERS.TimeDistributed(
            LAYERS.Dense(3, kernel_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(2))
        ),
        LAYERS.SpectralNormalization(LAYERS.Conv2D(3, 3)),
        LAYERS.Reshape((36, 3)),
        LAYERS.Cropping1D((0, 33)),
        LAYERS.Bidirectional(LAYERS.LSTM(3, return_sequences=True)),
        LAYERS.RNN([LAYERS.GRUCell(3), LAYERS.LSTMCell(2)], unroll=False),
    ),
    "augmentation": lambda: sequential(
        LAYERS.RandomFlip(seed=3),
        LAYERS.RandomRotation(0.1),
        LAYERS.RandomZoom(0.1),
        LAYERS.RandomContrast(0.1),
        LAYERS.RandomTranslation(0.1, 0.1),
        LAYERS.GaussianNoise(0.1),
        LAYERS.RandAugment(value_range=(0, 1)),
    ),
    "preprocessing": lambda: sequential(
        LAYERS.Rescaling(1 / 255, offset=[-1.0, 0.0, 1.0]),
        LAYERS.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 1.0, 1.0]),
        LAYERS.BatchNormalization(synchronized=True),
        LAYERS.Dropout(0.5),
        LAYERS.CenterCrop(4, 4),
    ),
    "precision": lambda: sequential(
        LAYERS.Conv2D(2, 3, dtype="mixed_bfloat16"),
        LAYERS.Dense(2, dtype=keras.dtype_policies.DTypePolicy("float64")),
    ),
    "nested and compiled": compiled_inside,
    "the gallery": lambda: networks.get("cnn4", input_shape=(16, 16, 3), num_classes=10, width=0.1),
}


@pytest.mark.parametrize("build", HONEST.values(), ids=HONEST.keys())
def test_honest_networks_are_loaded(build, tmp_path):
    model = build()
    model.save(tmp_path / "honest.keras")
    loaded = keras_files.load(tmp_path / "honest.keras", "it")
    x = np.random.default_rng(0).uniform(0, 1, (2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(loaded(x, training=False), model(x, training=False), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny"]
)
@pytest.mark.slow
def test_networks_of_keras_applications_are_loaded(name, tmp_path):
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3))
    model.save(tmp_path / "honest.keras")
    loaded = keras_files.load(tmp_path / "honest.keras", "it")
    assert loaded.count_params() == model.count_params()


def test_the_layers_of_their_own_that_keras_applications_have_are_known():
    from keras.src.applications import convnext

    layers = [convnext.LayerScale(1e-6, 3), convnext.StochasticDepth(0.1)]
    keras_configs.check({"layers": [keras.saving.serialize_keras_object(i) for i in layers]}, "it")


def test_the_zoo_is_loaded():
    for name in zoo.names():
        with keras_files.checked(zoo.path(name) / zoo.NETWORK, name):
            pass
