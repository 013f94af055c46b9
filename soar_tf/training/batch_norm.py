"""Whether BatchNorm's moving statistics have caught up with training.

A network is evaluated, attacked and saved in inference mode, where BatchNorm uses its moving
statistics. After few steps from a new network they are still those of its construction, and the
network looks broken, though the training pass, with batch statistics, is fine.
"""

import keras
import numpy as np

from soar_tf.models.keras_internals import layers_of

# Share of the initial statistics that may be left.
LEFT_OVER = 0.1


def untouched(network):
    """The BatchNorm layers whose moving statistics are those of a new layer: mean 0, variance 1."""
    return [
        layer
        for layer in layers_of(network, include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization)
        and not np.any(layer.moving_mean)
        and np.all(np.asarray(layer.moving_variance) == 1.0)
    ]


def lag(layers, steps):
    """Says how far the moving statistics lag behind after training, if that is far.

    Args:
        layers: The layers that `untouched` gave before training.
        steps: Number of training steps since then.

    Returns:
        One sentence, or `None`.

    Example:

    >>> import keras
    >>> from soar_tf.training import batch_norm
    >>> batch_norm.lag([keras.layers.BatchNormalization(momentum=0.9)], 100) is None
    True
    """
    slow = [layer for layer in layers if layer.momentum**steps > LEFT_OVER]
    if not slow:
        return None
    momentum = max(layer.momentum for layer in slow)
    return (
        f"After {steps} steps, the moving statistics of {len(slow)} BatchNorm layers (momentum "
        f"{momentum:g}) are still {100 * momentum**steps:.0f} % those of a new network, so the "
        "network that is evaluated and saved is not the one that was trained. Train for more "
        "steps, or give the layers a smaller momentum, such as layer.momentum = 0.9."
    )
