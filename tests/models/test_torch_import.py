"""PyTorch weights in Keras networks, against a forward pass written in NumPy from their names."""

import collections
import json
import sys

import numpy as np
import pytest

from soar_tf.errors import InputError
from soar_tf.models import torch_import

sys.path.insert(0, str(__import__("pathlib").Path(__file__).parent))
import torch_writer


def convolve(x, kernel, stride):
    """PyTorch's convolution of `[N, C, H, W]`, padded by half the kernel on every side."""
    size = kernel.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
    outer = (x.shape[2] - size) // stride + 1
    result = np.zeros((len(x), len(kernel), outer, outer))
    for row in range(outer):
        for column in range(outer):
            top, left = row * stride, column * stride
            part = x[:, :, top : top + size, left : left + size]
            result[:, :, row, column] = np.einsum("nchw,ochw->no", part, kernel)
    return result


def norm_and_relu(x, w, name):
    def column(part):
        return w[f"{name}.{part}"].astype("float64")[None, :, None, None]

    scaled = (x - column("running_mean")) / np.sqrt(column("running_var") + 1e-5)
    return np.maximum(scaled * column("weight") + column("bias"), 0)


def block(x, w, name, shortcut, stride):
    active = norm_and_relu(x, w, f"{name}.bn1")
    if f"{shortcut}.weight" in w:
        x = convolve(active, w[f"{shortcut}.weight"], stride)
    y = convolve(active, w[f"{name}.conv1.weight"], stride)
    return x + convolve(norm_and_relu(y, w, f"{name}.bn2"), w[f"{name}.conv2.weight"], 1)


def preact_logits(w, x):
    x = convolve(x, w["conv1.weight"], 1)
    for stage in (1, 2, 3, 4):
        for number in (0, 1):
            name, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            x = block(x, w, name, f"{name}.shortcut.0", stride)
    x = norm_and_relu(x, w, "bn").mean(axis=(2, 3))
    return x @ w["linear.weight"].T + w["linear.bias"]


def wide_logits(w, x, count):
    x = convolve(x, w["conv1.weight"], 1)
    for stage in (1, 2, 3):
        for number in range(count):
            name, stride = f"block{stage}.layer.{number}", 2 if stage > 1 and number == 0 else 1
            x = block(x, w, name, f"{name}.convShortcut", stride)
    x = norm_and_relu(x, w, "bn1").mean(axis=(2, 3))
    return x @ w["fc.weight"].T + w["fc.bias"]


class Random:
    """Random weights under PyTorch's names."""

    def __init__(self):
        self.generator, self.weights = np.random.default_rng(0), collections.OrderedDict()

    def convolution(self, name, inner, outer, size):
        scale = 1 / np.sqrt(inner * size * size)
        kernel = scale * self.generator.normal(size=(outer, inner, size, size))
        self.weights[f"{name}.weight"] = kernel.astype("float32")

    def norm(self, name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            values = self.generator.uniform(0.5, 1.5, channels)
            self.weights[f"{name}.{part}"] = values.astype("float32")
        self.weights[f"{name}.num_batches_tracked"] = np.array(7)

    def block(self, name, shortcut, inner, outer):
        self.norm(f"{name}.bn1", inner)
        self.convolution(f"{name}.conv1", inner, outer, 3)
        self.norm(f"{name}.bn2", outer)
        self.convolution(f"{name}.conv2", outer, outer, 3)
        if inner != outer:
            self.convolution(f"{name}.{shortcut}", inner, outer, 1)

    def dense(self, name, inner, outer):
        self.weights[f"{name}.weight"] = self.generator.normal(size=(outer, inner)).astype("f4")
        self.weights[f"{name}.bias"] = self.generator.normal(size=outer).astype("f4")


@pytest.fixture(scope="module")
def preact():
    made = Random()
    made.convolution("conv1", 3, 4, 3)
    inner = 4
    for stage, outer in zip((1, 2, 3, 4), (4, 8, 16, 32), strict=True):
        for number in (0, 1):
            made.block(f"layer{stage}.{number}", "shortcut.0", inner, outer)
            inner = outer
    made.norm("bn", 32)
    made.dense("linear", 32, 5)
    return made.weights


@pytest.fixture(scope="module")
def wide():
    made = Random()
    made.convolution("conv1", 3, 16, 3)
    inner = 16
    for stage, outer in zip((1, 2, 3), (32, 64, 128), strict=True):
        for number in (0, 1):
            made.block(f"block{stage}.layer.{number}", "convShortcut", inner, outer)
            inner = outer
    made.norm("bn1", 128)
    made.dense("fc", 128, 4)
    return made.weights


X = np.random.default_rng(1).uniform(size=(3, 16, 16, 3)).astype("float32")
FIRST = X.astype("float64").transpose(0, 3, 1, 2)


def test_preact_resnet18_is_the_checkpoints_network(preact, tmp_path):
    torch_writer.save(tmp_path / "m.pt", {"epoch": 3, "state_dict": preact})
    network = torch_import.load(tmp_path / "m.pt", "preact_resnet18", image_size=(16, 16))
    wanted = preact_logits(preact, FIRST)
    np.testing.assert_allclose(network(X, training=False), wanted, rtol=2e-4, atol=2e-4)


def test_wide_resnet_is_the_checkpoints_network(wide, tmp_path):
    prefixed = {f"module.{key}": value for key, value in wide.items()}
    prefixed["module.sub_block1.layer.0.conv1.weight"] = np.zeros((2, 2, 3, 3), "float32")
    torch_writer.save(tmp_path / "m.pt", prefixed)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    network = torch_import.load(
        tmp_path / "m.pt", "wide_resnet", image_size=(16, 16), mean=mean, std=std
    )
    scaled = (FIRST - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    wanted = wide_logits(wide, scaled, 2)
    np.testing.assert_allclose(network(X, training=False), wanted, rtol=2e-4, atol=2e-4)


def test_a_checkpoints_own_normalisation_is_taken(preact, tmp_path):
    stored = {f"model.{key}": value for key, value in preact.items()}
    stored["mu"] = np.full((1, 3, 1, 1), 0.5, "float32")
    stored["sigma"] = np.full((1, 3, 1, 1), 0.25, "float32")
    torch_writer.save(tmp_path / "m.pt", stored)
    network = torch_import.load(tmp_path / "m.pt", "preact_resnet18", image_size=(16, 16))
    wanted = preact_logits(preact, (FIRST - 0.5) / 0.25)
    np.testing.assert_allclose(network(X, training=False), wanted, rtol=2e-4, atol=2e-4)


def test_safetensors(preact, tmp_path):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for key, value in preact.items():
        kind = {"float32": "F32", "int64": "I64"}[value.dtype.name]
        content = value.tobytes()
        span = [len(data), len(data) + len(content)]
        header[key] = {"dtype": kind, "shape": list(value.shape), "data_offsets": span}
        data += content
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    network = torch_import.load(path, "preact_resnet18", image_size=(16, 16))
    wanted = preact_logits(preact, FIRST)
    np.testing.assert_allclose(network(X, training=False), wanted, rtol=2e-4, atol=2e-4)


def test_what_does_not_fit(preact, wide, tmp_path):
    def refused(weights, network, message):
        torch_writer.save(tmp_path / "m.pt", weights)
        with pytest.raises(InputError, match=message):
            torch_import.load(tmp_path / "m.pt", network, image_size=(16, 16))

    refused(wide, "preact_resnet18", "lacks linear.weight")
    refused({"a": np.zeros(3)}, "wide_resnet", "holds no conv1.weight")
    refused({**preact, "extra.weight": np.zeros(3)}, "preact_resnet18", "holds extra.weight")
    smaller = {**preact, "layer2.0.conv1.weight": np.zeros((9, 4, 3, 3), "float32")}
    refused(smaller, "preact_resnet18", "layer2.0.conv1 of the checkpoint must have the shapes")


def test_the_command(preact, tmp_path, run_cli):
    torch_writer.save(tmp_path / "m.pt", preact)
    arguments = ("import", tmp_path / "m.pt", "--network", "preact_resnet18", "--image-size", "16")
    found = run_cli(*arguments, "--json").json
    assert found["path"] == str(tmp_path / "m.keras") and found["input_shape"] == [16, 16, 3]
    assert "must not exist yet" in run_cli(*arguments, expect=2).stderr
    listed = run_cli(*arguments, "--output", tmp_path / "n.keras", "--mean", "1/2,1/2,1/2").stdout
    assert "5 classes" in listed
    result = run_cli(*arguments, "--output", tmp_path / "o.keras", "--mean", "x", expect=2)
    assert "Invalid value for '--mean'" in result.stderr
