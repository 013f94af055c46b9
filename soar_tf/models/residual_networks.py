"""Residual networks for small images: a 3x3 stem without pooling, and four stages of two blocks."""

from keras import layers

from soar_tf.errors import InputError
from soar_tf.models.network_parts import normalized, scaled, with_logits
from soar_tf.validation import check_choice, check_integer

STAGES = (64, 128, 256, 512)
WIDE_STEM, WIDE_STAGES = 16, (16, 32, 64)
PADDINGS = ("same", "symmetric")
_DEEPEST = 1000


def resnet18(input_shape=(32, 32, 3), num_classes=10, width=1.0, normalization="fixed"):
    """ResNet-18 for small images (He et al. 2016, arXiv:1512.03385): 3x3 stem, no first pooling.

    Args:
        input_shape: `(height, width, channels)` of the images, at least 8x8.
        num_classes: Number of classes, at least 2.
        width: Factor on every layer's number of channels; 1 means 64, 128, 256, 512.
        normalization: `"fixed"` (4x - 2) or `"per_image"`, see `soar_tf.networks.standardize`.

    Returns:
        A `keras.Model` giving logits `[B, num_classes]`.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.resnet18(width=0.1).output_shape
    (None, 10)
    """
    inputs, x = normalized(input_shape, 8, normalization)
    x = _convolution_and_norm(x, scaled(64, width), 3, 1)
    x = layers.ReLU()(x)
    for stage, channels in enumerate(STAGES):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _residual_block(x, scaled(channels, width), stride)
    x = layers.GlobalAveragePooling2D()(x)
    return with_logits(inputs, x, num_classes, "resnet18")


def preact_resnet18(
    input_shape=(32, 32, 3), num_classes=10, width=1.0, normalization="fixed", padding="same"
):
    """PreAct ResNet-18 for small images (He et al. 2016, arXiv:1603.05027).

    BatchNorm and ReLU come before each convolution, so that the identity runs from the stem to the
    last block undisturbed; a last BatchNorm and ReLU precede the average. Most papers on fast
    adversarial training use it. Of CIFAR-10 images, 30 epochs of a one-step method take two CPU
    cores about an hour at `width=0.25`.

    Args:
        input_shape: `(height, width, channels)` of the images, at least 8x8.
        num_classes: Number of classes, at least 2.
        width: Factor on every layer's number of channels; 1 means 64, 128, 256, 512.
        normalization: `"fixed"` (4x - 2), `"per_image"`, see `soar_tf.networks.standardize`, or
            `(mean, std)`, a number per channel each.
        padding: Of the convolutions that halve the image: `"same"` (TensorFlow's, a row below and
            right) or `"symmetric"` (PyTorch's, on every side).

    Returns:
        A `keras.Model` giving logits `[B, num_classes]`.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.preact_resnet18(width=0.25).count_params()
    702970
    """
    inputs, x = normalized(input_shape, 8, normalization)
    x = _convolution(x, scaled(STAGES[0], width), 3, 1)
    for stage, channels in enumerate(STAGES):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _preactivation_block(x, scaled(channels, width), stride, padding)
    x = layers.GlobalAveragePooling2D()(_norm_and_relu(x))
    return with_logits(inputs, x, num_classes, "preact_resnet18")


def wide_resnet(
    input_shape=(32, 32, 3),
    num_classes=10,
    depth=28,
    width=10.0,
    normalization="fixed",
    padding="same",
):
    """Wide residual network (Zagoruyko and Komodakis 2016, arXiv:1605.07146), without dropout.

    A stem of 16 channels and three stages of (depth - 4) / 6 pre-activation blocks with 16, 32 and
    64 times `width` channels. WRN-34-10 is the largest network of the paper on TRADES; on CPU cores
    it is for evaluation, not for training.

    Args:
        input_shape: `(height, width, channels)` of the images, at least 8x8.
        num_classes: Number of classes, at least 2.
        depth: Number of layers with weights, 6n + 4: 10, 16, 28, 34, ...
        width: Factor on the stages' channels.
        normalization: `"fixed"` (4x - 2), `"per_image"`, see `soar_tf.networks.standardize`, or
            `(mean, std)`, a number per channel each.
        padding: See `preact_resnet18`.

    Returns:
        A `keras.Model` giving logits `[B, num_classes]`.

    Raises:
        InputError: For a depth that is not 6n + 4.

    Example:

    >>> import soar_tf
    >>> soar_tf.networks.wide_resnet(depth=10, width=1).output_shape
    (None, 10)
    """
    depth = check_integer(depth, "depth", minimum=10, maximum=_DEEPEST)
    blocks, rest = divmod(depth - 4, 6)
    if rest:
        raise InputError(f"`depth` must be 6n + 4, such as 16 or 28. Received: {depth}.")
    inputs, x = normalized(input_shape, 8, normalization)
    x = _convolution(x, WIDE_STEM, 3, 1)
    for stage, channels in enumerate(WIDE_STAGES):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _preactivation_block(x, scaled(channels, width), stride, padding)
    x = layers.GlobalAveragePooling2D()(_norm_and_relu(x))
    return with_logits(inputs, x, num_classes, "wide_resnet")


def _convolution(x, channels, kernel, stride, padding="same"):
    if check_choice(padding, "padding", PADDINGS) == "symmetric" and kernel > 1 and stride > 1:
        x = layers.ZeroPadding2D(kernel // 2)(x)
        return layers.Conv2D(channels, kernel, strides=stride, use_bias=False)(x)
    return layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False)(x)


def _norm(x):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _norm_and_relu(x):
    return layers.ReLU()(_norm(x))


def _convolution_and_norm(x, channels, kernel, stride):
    return _norm(_convolution(x, channels, kernel, stride))


def _residual_block(x, channels, stride):
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = _convolution_and_norm(x, channels, 1, stride)
    x = layers.ReLU()(_convolution_and_norm(x, channels, 3, stride))
    x = _convolution_and_norm(x, channels, 3, 1)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _preactivation_block(x, channels, stride, padding):
    active = _norm_and_relu(x)
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = _convolution(active, channels, 1, stride)
    x = _convolution(active, channels, 3, stride, padding)
    x = _convolution(_norm_and_relu(x), channels, 3, 1)
    return layers.Add()([x, shortcut])
