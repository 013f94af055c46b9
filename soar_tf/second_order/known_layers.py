"""What is known about Keras layers by their class, and how findings are explained.

Every class in the table was measured with `soar_tf.second_order.probe`; this package's tests
measure it again.
"""

import dataclasses
import inspect

import keras
import tensorflow as tf
from keras import activations, layers

from soar_tf.models import keras_internals
from soar_tf.second_order.probe import Finding


def _named(module, names):
    # Keras 3.12 has no adaptive pooling yet; any other name must exist.
    existing = (n for n in names.split() if hasattr(module, n) or not n.startswith("Adaptive"))
    return frozenset(getattr(module, name) for name in existing)


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
# Activations that call only operations with second-order gradients.
ACTIVATIONS = _named(
    activations,
    "celu elu exponential gelu hard_sigmoid hard_silu leaky_relu linear log_sigmoid "
    "log_softmax mish relu relu6 selu sigmoid silu softmax softplus tanh",
)

MAX_POOLS = frozenset({"MaxPool", "MaxPoolV2", "MaxPool3D"})
# Operations whose second-order gradient is wrong, missing, or defined by custom code.
SUSPICIOUS = MAX_POOLS | {
    *("CropAndResize", "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3", "CustomGradient", "Dilation2D"),
    *("EagerPyFunc", "FractionalAvgPool", "FractionalMaxPool", "ImageProjectiveTransformV2"),
    *("ImageProjectiveTransformV3", "LRN", "MaxPoolWithArgmax", "PyFunc", "ResizeArea"),
    *("ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor", "ScaleAndTranslate"),
    *("Softsign", "StopGradient"),
}

CUSTOM_MAX_POOL = "max-pooling that it calls directly is wrong under XLA (jit_compile=True)"
STOPS = "it stops a gradient, so the penalty's gradient is not the derivative of the penalty"
CUDNN = "cuDNN has no second-order gradient"
DISCONNECTED = "no gradient of the output reaches the input"

_INSTEAD = {
    "SoftsignGrad": "use tanh instead",
    "LRNGrad": "use keras.layers.LayerNormalization instead",
    "MaxPoolGradWithArgmax": "use keras.layers.MaxPooling2D instead",
    "FractionalMaxPoolGrad": "use keras.layers.MaxPooling2D instead",
    "ResizeBicubicGrad": "call it as tf.image.resize, or use keras.layers.Resizing",
    "ScaleAndTranslateGrad": "call it as tf.image.resize, or use keras.layers.Resizing",
    "ResizeNearestNeighborGrad": "use keras.layers.UpSampling2D instead",
    "CropAndResizeGradImage": "use keras.layers.Resizing instead",
    CUSTOM_MAX_POOL: "use keras.layers.MaxPooling2D, or compile with jit_compile=False",
    CUDNN: "build it with use_cudnn=False",
}


def is_atomic(unit):
    """Whether a nested layer is checked as a whole: all of its layers are Keras layers."""
    nested = keras_internals.layers_of(unit) if keras_internals.has_layers(unit) else [unit]
    return all(
        type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.Model)
        for layer in nested
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
    return explain(unit, Finding("exact"))


def _known_activations(unit):
    names = ("activation", "recurrent_activation")
    return all(getattr(unit, name, None) in (None, *ACTIVATIONS) for name in names)


def explain(unit, finding):
    """Refines the verdict of an exact layer to say why it is exact, and notes known pitfalls."""
    if finding.verdict != "exact":
        return finding
    verdict, note = "exact", finding.note
    if finding.replaced:
        verdict = "replaced"
        note = note or ", ".join(sorted(map(_public, finding.replaced)))
    elif _depends_on_mode(unit):
        verdict = "inference"
    if _uses_cudnn(unit):
        note = note or "on a GPU, build it with use_cudnn=False"
    return dataclasses.replace(finding, verdict=verdict, note=note)


def _public(name):
    return f"tf.image.{name}" if name == "resize" else f"tf.nn.{name}"


def _depends_on_mode(unit):
    """Whether the layer differs between training and inference mode."""
    if isinstance(unit, layers.Lambda):
        return "training" in inspect.signature(unit.function).parameters
    if "training" not in inspect.signature(unit.call).parameters:
        return False
    given = keras_internals.dropout_rates(unit)
    return any(given) if given else type(unit) not in EXACT


def _uses_cudnn(unit):
    inner = keras_internals.layers_of(unit) if isinstance(unit, layers.Layer) else []
    return any(getattr(layer, "use_cudnn", False) for layer in inner)


def describe(unit):
    """A layer's class, with its activation unless that is a known one."""
    name = type(unit).__name__
    activation = getattr(unit, "activation", None)
    if activation is None or activation in ACTIVATIONS:
        return name
    return f"{name} {getattr(activation, '__name__', type(activation).__name__)}"


def error_message(row):
    """The error message for a wrong or missing row, with what to use instead."""
    reason = row.note
    if reason == DISCONNECTED:
        return (
            f"The output of {row.name!r} has no gradient with respect to its input, for instance "
            "because a layer converts it to integers; attacks and penalties need one."
        )
    if row.verdict == "missing":
        problem = "has no second-order gradient in TensorFlow"
    elif row.relative_error is None:
        problem = "has a wrong second-order gradient"
    else:
        problem = f"has a wrong second-order gradient (relative error {row.relative_error:.1g})"
    advice = _INSTEAD.get(reason, "replace it")
    why = f" ({reason})" if reason else ""
    return (
        f"Layer {row.name!r} ({row.layer_class}) {problem}{why}; {advice}, or train with a method "
        "that has no curvature penalty, such as 'adversarial'."
    )
