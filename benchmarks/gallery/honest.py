"""Networks that hide nothing: kinds of layers and ways of training that must not be blamed."""

import dataclasses

import keras
from keras import layers

import soar_tf


@dataclasses.dataclass(frozen=True)
class Honest:
    """A network and its training.

    Attributes:
        body: Function of a Keras tensor `[B, 8, 8, 1]` that gives features `[B, D]`.
        method: The training method's text, as in `soar_tf.methods.get`.
        arguments: Its arguments.
        epochs: Epochs on all training digits.
    """

    body: object
    method: str = "standard"
    arguments: dict = dataclasses.field(default_factory=dict)
    epochs: int = 5

    def trained(self, train):
        """The trained `keras.Model`, from a fixed seed."""
        keras.utils.set_random_seed(1)
        inputs = keras.Input((8, 8, 1))
        network = keras.Model(inputs, layers.Dense(10)(self.body(inputs)))
        model = soar_tf.RobustModel(network, soar_tf.methods.get(self.method, **self.arguments))
        model.compile(keras.optimizers.Adam(3e-3))
        images, labels = train.float_images(), train.labels
        model.fit(images, labels, epochs=self.epochs, batch_size=64, verbose=0)
        return network


def _flat(x):
    return layers.Flatten()(x)


def _dense(activation):
    return lambda x: layers.Dense(32, activation)(_flat(x))


def _convolution(x):
    return layers.Conv2D(8, 3, activation="relu")(x)


def _normalised(layer):
    return lambda x: _flat(layers.ReLU()(layer()(layers.Conv2D(8, 3)(x))))


def _pooled(pooling):
    """By the class of the layer: every network has a layer of its own."""
    return lambda x: _flat(pooling(2)(_convolution(x)))


def _layer_norm(x):
    return layers.LayerNormalization()(_dense("gelu")(x))


def _attention(x):
    """Attention of the image's rows to each other."""
    rows = layers.Dense(16)(layers.Reshape((8, 8))(x))
    return _flat(rows + layers.MultiHeadAttention(2, 8)(rows, rows))


def _gate(x):
    """Squeeze and excitation: channels weighted by a sigmoid of their means."""
    features = _convolution(x)
    weights = layers.Dense(8, "sigmoid")(layers.GlobalAveragePooling2D()(features))
    return _flat(features * layers.Reshape((1, 1, 8))(weights))


def _residual(x):
    first = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    second = layers.Conv2D(8, 3, padding="same")(first)
    return _flat(layers.ReLU()(first + second))


def _depthwise(x):
    return _flat(layers.DepthwiseConv2D(3, depth_multiplier=4, activation="relu6")(x))


def _recurrent(x):
    return layers.LSTM(16)(layers.Reshape((8, 8))(x))


def _dropout(x):
    return layers.Dropout(0.3)(_dense("relu")(x))


def _cnn(x):
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D()(layers.Conv2D(16, 3, padding="same", activation="relu")(x))
    return layers.Dense(32, "relu")(_flat(x))


HONEST = {
    "linear": Honest(_flat),
    "multilayer perceptron": Honest(_dense("relu")),
    "tanh": Honest(_dense("tanh")),
    "gelu": Honest(_dense("gelu")),
    "batch normalisation": Honest(_normalised(lambda: layers.BatchNormalization(momentum=0.9))),
    "group normalisation": Honest(_normalised(lambda: layers.GroupNormalization(4))),
    "layer normalisation": Honest(_layer_norm),
    "attention": Honest(_attention),
    "gate": Honest(_gate),
    "max pooling": Honest(_pooled(layers.MaxPooling2D)),
    "average pooling": Honest(_pooled(layers.AveragePooling2D)),
    "depthwise, relu6": Honest(_depthwise),
    "residual": Honest(_residual),
    "recurrent": Honest(_recurrent, epochs=10),
    "dropout": Honest(_dropout),
    "adversarial": Honest(_cnn, "adversarial", {"epsilon": 0.1, "steps": 3}, 8),
    "adversarial, linear": Honest(_flat, "adversarial", {"epsilon": 0.1, "steps": 3}),
    "TRADES": Honest(_cnn, "trades", {"epsilon": 0.1, "steps": 3}, 8),
    "MART": Honest(_cnn, "mart", {"epsilon": 0.1, "steps": 3}, 8),
    "SOAR": Honest(_dense("tanh"), "soar", {"epsilon": 0.05}, 8),
    "gradient norm": Honest(_dense("tanh"), "gradient_norm", {}, 8),
}
