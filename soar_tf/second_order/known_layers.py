"""What is known about Keras's layers by their class, and the words for what was measured.

The table was measured by `soar_tf.second_order.probe` on every class in it, and is so again by
this package's tests.
"""

import dataclasses
import inspect

import keras
import tensorflow as tf
from keras import activations, layers

from soar_tf.second_order.probe import Finding


def _named(module, names):
    # Keras 3.12 has no adaptive pooling yet; any other name must exist.
    there = (n for n in names.split() if hasattr(module, n) or not n.startswith("Adaptive"))
    return frozenset(getattr(module, name) for name in there)


SEVERITY = ("missing", "wrong", "unchecked", "inference", "replaced", "exact")

EXACT = _named(
    layers,
    "Activation ActivityRegularization Add Average AveragePooling1D AveragePooling2D "
    "AveragePooling3D AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
    "AdaptiveAveragePooling3D Attention AdditiveAttention Concatenate Conv1D Conv1DTranspose "
    "Conv2D Conv2DTranspose Conv3D Conv3DTranspose Cropping1D Cropping2D Cropping3D Dense "
    "DepthwiseConv1D DepthwiseConv2D Dot ELU EinsumDense Flatten GRU GlobalAveragePooling1D "
    "GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D "
    "GlobalMaxPooling3D GroupQueryAttention Identity LSTM LeakyReLU Maximum Minimum "
    "MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization ReLU "
    "RepeatVector Rescaling Reshape SeparableConv1D SeparableConv2D SimpleRNN Softmax "
    "Subtract UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D "
    "ZeroPadding2D ZeroPadding3D",
)
REPLACED = _named(
    layers,
    "MaxPooling1D MaxPooling2D MaxPooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D "
    "AdaptiveMaxPooling3D LayerNormalization GroupNormalization Resizing",
)
INFERENCE = _named(
    layers,
    "AlphaDropout BatchNormalization Dropout GaussianDropout GaussianNoise RandomBrightness "
    "RandomContrast RandomErasing RandomFlip RandomHue RandomRotation RandomSaturation "
    "RandomSharpness RandomShear RandomTranslation RandomZoom SpatialDropout1D "
    "SpatialDropout2D SpatialDropout3D",
)
# Activations that only call operations with second-order gradients.
ACTIVATIONS = _named(
    activations,
    "celu elu exponential gelu hard_sigmoid hard_silu leaky_relu linear log_sigmoid "
    "log_softmax mish relu relu6 selu sigmoid silu softmax softplus tanh",
)

MAX_POOLS = frozenset({"MaxPool", "MaxPoolV2", "MaxPool3D"})
# Operations whose second-order gradient is wrong, missing or up to whoever wrote it.
SUSPICIOUS = MAX_POOLS | {
    *("CropAndResize", "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3", "CustomGradient", "Dilation2D"),
    *("EagerPyFunc", "FractionalAvgPool", "FractionalMaxPool", "ImageProjectiveTransformV2"),
    *("ImageProjectiveTransformV3", "LRN", "MaxPoolWithArgmax", "PyFunc", "ResizeArea"),
    *("ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor", "ScaleAndTranslate"),
    *("Softsign", "StopGradient"),
}

OWN_MAX_POOL = "its own max-pooling is wrong under XLA (jit_compile=True)"
STOPS = "it stops a gradient, so the penalty's gradient is not the penalty's derivative"
CUDNN = "cuDNN has no second-order gradient"
DISCONNECTED = "no gradient of the output reaches the input"

_INSTEAD = {
    "SoftsignGrad": "use tanh instead",
    "LRNGrad": "use keras.layers.LayerNormalization instead",
    "MaxPoolGradWithArgmax": "use keras.layers.MaxPooling2D instead",
    "FractionalMaxPoolGrad": "use keras.layers.MaxPooling2D instead",
    "ResizeBicubicGrad": "use tf.image.resize by that name, or keras.layers.Resizing",
    "ScaleAndTranslateGrad": "use tf.image.resize by that name, or keras.layers.Resizing",
    "ResizeNearestNeighborGrad": "use keras.layers.UpSampling2D instead",
    "CropAndResizeGradImage": "use keras.layers.Resizing instead",
    OWN_MAX_POOL: "use keras.layers.MaxPooling2D, or compile with jit_compile=False",
    CUDNN: "build it with use_cudnn=False",
}


def is_atomic(unit):
    """Whether a layer with layers inside is judged as one: it and they are Keras's own."""
    everything = unit._flatten_layers() if hasattr(unit, "_flatten_layers") else [unit]
    return all(
        type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.Model)
        for layer in everything
    )


def by_class(unit):
    """The `Finding` for a layer of a known class, or `None` if it has to be measured."""
    if _uses_cudnn(unit) and tf.config.list_physical_devices("GPU"):
        return Finding("missing", note=CUDNN)
    if type(unit) in INFERENCE:
        return Finding("inference")
    if type(unit) in REPLACED:
        return Finding("replaced")
    if type(unit) is layers.UpSampling2D and unit.interpolation != "nearest":
        return Finding("replaced")
    if type(unit) not in EXACT or not _known_activations(unit):
        return None
    return explained(unit, Finding("exact"))


def _known_activations(unit):
    names = ("activation", "recurrent_activation")
    return all(getattr(unit, name, None) in (None, *ACTIVATIONS) for name in names)


def explained(unit, finding):
    """A finding with the verdict that says why the layer is exact, and with known pitfalls."""
    if finding.verdict != "exact":
        return finding
    verdict, note = "exact", finding.note
    if finding.replaced:
        verdict = "replaced"
        note = note or ", ".join(sorted(map(_public, finding.replaced)))
    elif _random_or_batched(unit):
        verdict = "inference"
    if _uses_cudnn(unit):
        note = note or "on a GPU, build it with use_cudnn=False"
    return dataclasses.replace(finding, verdict=verdict, note=note)


def _public(name):
    return f"tf.image.{name}" if name == "resize" else f"tf.nn.{name}"


def _random_or_batched(unit):
    """Whether training mode would make a difference."""
    if isinstance(unit, layers.Lambda):
        return "training" in inspect.signature(unit.function).parameters
    if "training" not in inspect.signature(unit.call).parameters:
        return False
    rates = ("dropout", "recurrent_dropout", "_dropout")
    given = [getattr(unit, name) for name in rates if hasattr(unit, name)]
    return any(given) if given else type(unit) not in EXACT


def _uses_cudnn(unit):
    inner = unit._flatten_layers() if isinstance(unit, layers.Layer) else []
    return any(getattr(layer, "use_cudnn", False) for layer in inner)


def describe(unit):
    """A layer's class, with its activation if that is not a known one."""
    name = type(unit).__name__
    activation = getattr(unit, "activation", None)
    if activation is None or activation in ACTIVATIONS:
        return name
    return f"{name} {getattr(activation, '__name__', type(activation).__name__)}"


def sentence(row):
    """The error for a row that is wrong or missing, and what to use instead."""
    reason = row.note
    if reason == DISCONNECTED:
        return (
            f"The output of {row.name!r} has no gradient by its input, for instance since a layer "
            "turns it into integers; attacks and penalties need one."
        )
    if row.verdict == "missing":
        what = "has no second-order gradient in TensorFlow"
    elif row.relative_error is None:
        what = "has a wrong second-order gradient"
    else:
        what = f"has a wrong second-order gradient (relative error {row.relative_error:.1g})"
    instead = _INSTEAD.get(reason, "replace it")
    why = f" ({reason})" if reason else ""
    return (
        f"Layer {row.name!r} ({row.layer_class}) {what}{why}; {instead}, or train with a method "
        "that has no curvature penalty, such as 'adversarial'."
    )
