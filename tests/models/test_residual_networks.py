"""Residual networks against a forward pass in NumPy, and their sizes."""

import itertools

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.models import networks

SHAPE = (8, 8, 1)


def convolve(x, kernel, stride):
    """Convolution with "same" padding, which TensorFlow puts below and right first."""
    size = kernel.shape[0]
    outer = -(-x.shape[1] // stride)
    total = max((outer - 1) * stride + size - x.shape[1], 0)
    before = (total // 2, total - total // 2)
    padded = np.pad(x, ((0, 0), before, before, (0, 0)))
    result = np.zeros((len(x), outer, outer, kernel.shape[3]))
    for row in range(size):
        for column in range(size):
            stop = (outer - 1) * stride + 1
            part = padded[:, row : row + stop : stride, column : column + stop : stride]
            result += part @ kernel[row, column]
    return result


class Weights:
    """A network's weights in float64, in the order of their use."""

    def __init__(self, network):
        self.kernels = [
            layer.kernel.numpy().astype("float64")
            for layer in network.layers
            if isinstance(layer, keras.layers.Conv2D)
        ]
        self.norms = [
            [w.astype("float64") for w in layer.get_weights()]
            for layer in network.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]

    def kernel(self, size):
        position = next(i for i, k in enumerate(self.kernels) if k.shape[0] == size)
        return self.kernels.pop(position)

    def norm_and_relu(self, x):
        gamma, beta, mean, variance = self.norms.pop(0)
        return np.maximum(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta, 0)


def preact_logits(network, x):
    """Equation by equation: x + F(relu(bn(x))), the shortcut projected where the shape changes."""
    weights = Weights(network)
    x = convolve(4 * x - 2, weights.kernel(3), 1)
    for block in range(8):
        stride = 2 if block in (2, 4, 6) else 1
        active = weights.norm_and_relu(x)
        shortcut = convolve(active, weights.kernel(1), stride) if stride == 2 else x
        x = convolve(active, weights.kernel(3), stride)
        x = convolve(weights.norm_and_relu(x), weights.kernel(3), 1) + shortcut
    features = weights.norm_and_relu(x).mean(axis=(1, 2))
    assert not weights.kernels and not weights.norms
    dense = network.get_layer("logits")
    return features @ dense.kernel.numpy().astype("float64") + dense.bias.numpy()


def test_preact_resnet18_is_the_formula():
    keras.utils.set_random_seed(3)
    network = networks.preact_resnet18(SHAPE, num_classes=4, width=1 / 32)
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            layer.set_weights(
                [
                    generator.uniform(0.5, 1.5, size),
                    generator.normal(0, 0.3, size),
                    generator.normal(0, 0.3, size),
                    generator.uniform(0.5, 2, size),
                ]
            )
    x = generator.random((3, *SHAPE))
    expected = preact_logits(network, x.astype("float32").astype("float64"))
    np.testing.assert_allclose(network(x, training=False), expected, rtol=1e-3, atol=1e-4)


def test_preact_resnet18_has_the_papers_size():
    # Stem; 3x3 pairs of each block; 1x1 projections; BatchNorm's scale and offset; logits.
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    pairs = [9 * (a * b + b * b) for a, b in itertools.pairwise(widths)]
    projections = [64 * 128, 128 * 256, 256 * 512]
    norms = 2 * (sum(a + b for a, b in itertools.pairwise(widths)) + 512)
    expected = 9 * 3 * 64 + sum(pairs) + sum(projections) + norms + 513 * 10
    network = networks.preact_resnet18()
    assert sum(int(np.prod(w.shape)) for w in network.trainable_weights) == expected == 11172170


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
def test_second_derivatives_can_be_trusted(name):
    network = networks.get(name, input_shape=SHAPE, num_classes=3, width="0.05")
    report = soar_tf.check_second_order(network)
    assert report.ok
    assert not any(row.verdict == "unchecked" for row in report.layers)
