"""`SOARModel`: the engine with SOAR, and SOAR's hyper-parameters as its arguments."""

import keras

from soar_tf.methods import SOAR
from soar_tf.training.robust_model import RobustModel


@keras.saving.register_keras_serializable(package="soar_tf")
class SOARModel(RobustModel):
    """A Keras model that trains a network with the second-order adversarial regularizer.

    `SOARModel(network, **arguments)` is `RobustModel(network, SOAR(**arguments))`. Fine-tune a
    network that was trained in the standard way: that is what SOAR is for.

    Args:
        network: A `keras.Model` with pixels in [0, 1] as input that gives logits; see
            `soar_tf.RobustModel`.
        epsilon: Radius of the threat model, in units of the pixel range.
        seed: Seed of all noise.
        **arguments: The other arguments of `soar_tf.methods.SOAR` (`lambda_`, `alpha`, `init`,
            `num_directions`, `norm_clip`, `penalty_clipnorm`, `preset`, ...), `micro_batch`,
            `skip_clipped` and `awp` (see `soar_tf.RobustModel`) and `name`.

    Raises:
        InputError: For an argument out of range, a softmax head, or a layer without exact second
            derivatives.

    Example:

    >>> import keras, numpy as np, soar_tf
    >>> network = soar_tf.networks.get("mlp", input_shape=(8, 8, 1), num_classes=10)
    >>> model = soar_tf.SOARModel(network, epsilon=0.1)
    >>> model.compile(optimizer=keras.optimizers.SGD(0.01), metrics=["accuracy"])
    >>> x, y = np.random.rand(32, 8, 8, 1).astype("float32"), np.arange(32) % 10
    >>> sorted(model.fit(x, y, verbose=0).history)
    ['accuracy', 'curvature_norm', 'loss', 'penalty', 'unclipped']
    """

    def __init__(self, network, epsilon=8 / 255, *, seed=0, **arguments):
        own = {k: arguments.pop(k) for k in _MODEL_ARGUMENTS if k in arguments}
        method = SOAR(epsilon=epsilon, **arguments)
        super().__init__(network, method, seed=seed, **own)

    def get_config(self):
        config = super().get_config()
        del config["method"]
        return {**config, **self.method.get_config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        network = keras.saving.deserialize_keras_object(
            config["network"], custom_objects=custom_objects
        )
        return cls(**{**config, "network": network})


_MODEL_ARGUMENTS = ("micro_batch", "skip_clipped", "awp", "name", "dtype", "trainable")
