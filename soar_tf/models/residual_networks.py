"""Residual networks for small images: a 3x3 stem without pooling, and four stages of two blocks."""

from keras import layers

from soar_tf.models.network_parts import normalized, scaled, with_logits

STAGES = (64, 128, 256, 512)


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


def preact_resnet18(input_shape=(32, 32, 3), num_classes=10, width=1.0, normalization="fixed"):
    """PreAct ResNet-18 for small images (He et al. 2016, arXiv:1603.05027).

    BatchNorm and ReLU come before each convolution, so that the identity runs from the stem to the
    last block undisturbed; a last BatchNorm and ReLU precede the average. Most papers on fast
    adversarial training use it. Of CIFAR-10 images, 30 epochs of a one-step method take two CPU
    cores about an hour at `width=0.25`.

    Args:
        input_shape: `(height, width, channels)` of the images, at least 8x8.
        num_classes: Number of classes, at least 2.
        width: Factor on every layer's number of channels; 1 means 64, 128, 256, 512.
        normalization: `"fixed"` (4x - 2) or `"per_image"`, see `soar_tf.networks.standardize`.

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
            x = _preactivation_block(x, scaled(channels, width), stride)
    x = layers.GlobalAveragePooling2D()(_norm_and_relu(x))
    return with_logits(inputs, x, num_classes, "preact_resnet18")


def _convolution(x, channels, kernel, stride):
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


def _preactivation_block(x, channels, stride):
    active = _norm_and_relu(x)
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = _convolution(active, channels, 1, stride)
    x = _convolution(active, channels, 3, stride)
    x = _convolution(_norm_and_relu(x), channels, 3, 1)
    return layers.Add()([x, shortcut])
