"""Weights of PyTorch's residual networks, in the package's own Keras networks.

The names of the weights are those that the networks of the field have: for `preact_resnet18`
`conv1`, `layer1.0.bn1`, ..., `bn`, `linear`; for `wide_resnet` `conv1`, `block1.layer.0.bn1`, ...,
`bn1`, `fc`. A prefix such as `module.` may precede them. Names say nothing about what a network
computes: another activation or normalisation under the same names gives another network.
"""

import re
from pathlib import Path

import keras
import numpy as np

from soar_tf.errors import InputError
from soar_tf.models import residual_networks
from soar_tf.models.untrusted import torch_files
from soar_tf.validation import check_choice

NETWORKS = ("preact_resnet18", "wide_resnet")
_NORM = ("weight", "bias", "running_mean", "running_var")
_MEANS, _DEVIATIONS = ("mu", "mean"), ("sigma", "std")
# Not weights: counters, and a second first stage that TRADES's networks have and do not use.
_UNUSED = re.compile(r"num_batches_tracked$|^sub_block1\.")


def load(path, network, *, mean=None, std=None, image_size=(32, 32), argument="checkpoint"):
    """Builds a network from a PyTorch checkpoint; no code in the file is run.

    Args:
        path: A file of `torch.save` (PyTorch 1.6 or later) or `.safetensors`, with a state_dict.
        network: `"preact_resnet18"` or `"wide_resnet"`; depth, width, channels and classes are the
            checkpoint's.
        mean: What is subtracted from the pixels in [0, 1], one number per channel; `None` takes the
            checkpoint's `mu` or `mean`, if it has one, else 0.
        std: What they are then divided by; `None` likewise takes `sigma` or `std`, else 1.
        image_size: `(height, width)`, in pixels.
        argument: The path's name, for the errors.

    Returns:
        A `keras.Model` giving logits.

    Raises:
        InputError: If it cannot be read, or its weights are not those of such a network.

    Example:

    >>> from soar_tf.models import torch_import
    >>> torch_import.NETWORKS
    ('preact_resnet18', 'wide_resnet')
    """
    check_choice(network, "network", NETWORKS)
    path = Path(path)
    name = f"`{argument}` {path}"
    try:
        arrays = torch_files.read(path, name)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from None
    weights = _Weights(arrays, name)
    channels = weights.shape("conv1.weight", 4)[1]
    normalization = weights.normalization(mean, std, channels)
    shape = (*image_size, channels)
    build = {"preact_resnet18": _preact_resnet18, "wide_resnet": _wide_resnet}[network]
    model, convolutions, norms, logits = build(weights, shape, normalization)
    _set(model, weights, convolutions, norms, logits)
    weights.check_all_used(network)
    return model


class _Weights:
    """The arrays of one network by the names that it has by itself."""

    def __init__(self, arrays, name):
        stems = [key for key in arrays if key.endswith("conv1.weight")]
        if not stems:
            raise InputError(f"{name} holds no conv1.weight: it is none of these networks.")
        prefix = min(stems, key=len).removesuffix("conv1.weight")
        self._name = name
        self._own = {
            key.removeprefix(prefix): value
            for key, value in arrays.items()
            if key.startswith(prefix)
        }
        self._arrays, self._used = arrays, set()

    def take(self, key, rank):
        self._used.add(key)
        if key not in self._own:
            raise InputError(f"{self._name} lacks {key}, which this network has.")
        value = self._own[key]
        if value.ndim != rank:
            raise InputError(f"{self._name}: {key} must have {rank} axes. Received: {value.shape}.")
        return value.astype("float32")

    def shape(self, key, rank):
        return self.take(key, rank).shape

    def count(self, pattern):
        """The number of layers of a stage."""
        numbers = {m[1] for key in self._own if (m := re.match(pattern, key))}
        return len(numbers)

    def normalization(self, mean, std, channels):
        """`(mean, std)` of the pixels: what was given, else the checkpoint's own."""
        found = []
        for given, names, default in ((mean, _MEANS, 0.0), (std, _DEVIATIONS, 1.0)):
            if given is None:
                stored = [
                    (key, value)
                    for key, value in self._arrays.items()
                    if key.rpartition(".")[2] in names and value.size in (1, channels)
                ]
                given = stored[0][1].ravel() if stored else [default]
            values = np.broadcast_to(np.asarray(given, "float64"), channels)
            found.append(tuple(float(value) for value in values))
        return tuple(found)

    def check_all_used(self, network):
        names = (*_MEANS, *_DEVIATIONS)
        left = [
            key
            for key in self._own
            if key not in self._used
            and not _UNUSED.search(key)
            and key.rpartition(".")[2] not in names
        ]
        if left:
            raise InputError(f"{self._name} holds {left[0]}, which {network} does not have.")


def _preact_resnet18(weights, shape, normalization):
    width = weights.shape("conv1.weight", 4)[0] / residual_networks.STAGES[0]
    classes = weights.shape("linear.weight", 2)[0]
    model = residual_networks.preact_resnet18(
        shape, classes, width, normalization, padding="symmetric"
    )
    blocks = [(f"layer{stage}.{block}", stage, block) for stage in (1, 2, 3, 4) for block in (0, 1)]
    projected = {prefix for prefix, stage, block in blocks if stage > 1 and block == 0}
    names = [(prefix, f"{prefix}.shortcut.0", prefix in projected) for prefix, _, _ in blocks]
    return model, *_keys(names), "linear"


def _wide_resnet(weights, shape, normalization):
    count = weights.count(r"block1\.layer\.(\d+)\.conv1\.weight")
    if not count:
        weights.take("block1.layer.0.conv1.weight", 4)
    first = weights.shape("block1.layer.0.conv1.weight", 4)[0]
    base = weights.shape("conv1.weight", 4)[0]
    if base != residual_networks.WIDE_STEM or first % base:
        raise InputError(
            f"`checkpoint` must be a wide_resnet with a stem of {residual_networks.WIDE_STEM} "
            f"channels. Received: {base} and {first}."
        )
    classes = weights.shape("fc.weight", 2)[0]
    model = residual_networks.wide_resnet(
        shape, classes, 6 * count + 4, first / base, normalization, padding="symmetric"
    )
    names = []
    for stage in (1, 2, 3):
        for block in range(count):
            prefix = f"block{stage}.layer.{block}"
            projected = block == 0 and (stage > 1 or first != base)
            names.append((prefix, f"{prefix}.convShortcut", projected))
    convolutions, norms = _keys(names)
    return model, convolutions, [*norms[:-1], "bn1"], "fc"


def _keys(blocks):
    """The names of convolutions and norms, in the order in which the networks are built."""
    convolutions, norms = ["conv1"], []
    for prefix, shortcut, projected in blocks:
        convolutions += [shortcut] if projected else []
        convolutions += [f"{prefix}.conv1", f"{prefix}.conv2"]
        norms += [f"{prefix}.bn1", f"{prefix}.bn2"]
    return convolutions, [*norms, "bn"]


def _set(model, weights, convolutions, norms, logits):
    """PyTorch's kernels are `[out, in, height, width]`, Keras's `[height, width, in, out]`."""
    for layer, key in zip(_layers(model, keras.layers.Conv2D), convolutions, strict=True):
        kernel = weights.take(f"{key}.weight", 4).transpose(2, 3, 1, 0)
        _assign(layer, [kernel], key)
    for layer, key in zip(_layers(model, keras.layers.BatchNormalization), norms, strict=True):
        _assign(layer, [weights.take(f"{key}.{part}", 1) for part in _NORM], key)
    dense = [weights.take(f"{logits}.weight", 2).T, weights.take(f"{logits}.bias", 1)]
    _assign(model.get_layer("logits"), dense, logits)


def _assign(layer, values, key):
    wanted = [tuple(weight.shape) for weight in layer.weights]
    if wanted != [value.shape for value in values]:
        raise InputError(
            f"{key} of the checkpoint must have the shapes {wanted} (in Keras's order). "
            f"Received: {[value.shape for value in values]}."
        )
    layer.set_weights(values)


def _layers(model, kind):
    """A network's layers of one kind in the order of their making: Keras numbers their names."""

    def number(layer):
        last = layer.name.rpartition("_")[2]
        return int(last) if last.isdigit() else 0

    return sorted((layer for layer in model.layers if isinstance(layer, kind)), key=number)
