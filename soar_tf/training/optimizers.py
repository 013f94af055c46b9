"""Keras optimizers with coupled weight decay, the one that most papers train with."""

import keras

from soar_tf.validation import check_number


class _Coupled:
    """Adds `coupled_weight_decay * variable` to each gradient, before the optimizer's own update.

    `update_step` gets the gradient as the update uses it: summed over replicas and micro-batches,
    unscaled and clipped. So the decay is neither clipped nor counted more than once.
    """

    def __init__(self, *args, coupled_weight_decay=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.coupled_weight_decay = check_number(
            coupled_weight_decay, "coupled_weight_decay", minimum=0.0
        )

    def update_step(self, gradient, variable, learning_rate):
        decay = keras.ops.cast(self.coupled_weight_decay, variable.dtype)
        gradient = keras.ops.cast(gradient, variable.dtype) + decay * variable
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "coupled_weight_decay": self.coupled_weight_decay}


@keras.saving.register_keras_serializable(package="soar_tf")
class CoupledSGD(_Coupled, keras.optimizers.SGD):
    r"""SGD with the weight decay of `torch.optim.SGD`: part of the gradient.

    With momentum $\mu$ and rate $\eta$, for a weight $w$ with gradient $g$:

    $$v \leftarrow \mu v - \eta\,(g + \lambda w), \qquad w \leftarrow w + v.$$

    `keras.optimizers.SGD(weight_decay=...)` is decoupled instead: it takes $\eta\lambda w$ off the
    weight, outside momentum. Where the gradient changes slowly, momentum multiplies the coupled
    decay by $1/(1 - \mu)$: at $\mu = 0.9$ it is ten times stronger than the decoupled one of the
    same number.

    Args:
        *args: Positional arguments of `keras.optimizers.SGD`.
        coupled_weight_decay: The decay $\lambda$, at least 0. It acts on every trainable weight,
            biases included.
        **kwargs: Further arguments of `keras.optimizers.SGD`.

    Raises:
        InputError: If the decay is negative or no number.

    Example:

    >>> from soar_tf.training import CoupledSGD
    >>> optimizer = CoupledSGD(0.002, momentum=0.9, coupled_weight_decay=2e-4)
    >>> optimizer.get_config()["coupled_weight_decay"]
    0.0002
    """


@keras.saving.register_keras_serializable(package="soar_tf")
class CoupledAdam(_Coupled, keras.optimizers.Adam):
    """Adam with the weight decay of `torch.optim.Adam`: added to the gradient before its moments.

    `keras.optimizers.Adam(weight_decay=...)` and `AdamW` are decoupled instead (Loshchilov and
    Hutter 2019, arXiv:1711.05101).

    Args:
        *args: Positional arguments of `keras.optimizers.Adam`.
        coupled_weight_decay: The decay, at least 0. It acts on every trainable weight.
        **kwargs: Further arguments of `keras.optimizers.Adam`.

    Raises:
        InputError: If the decay is negative or no number.

    Example:

    >>> from soar_tf.training import CoupledAdam
    >>> CoupledAdam(1e-3, coupled_weight_decay=5e-4).coupled_weight_decay
    0.0005
    """
