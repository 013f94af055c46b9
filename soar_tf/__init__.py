"""soar-tf: adversarially robust training and honest robustness evaluation for Keras 3.

`import soar_tf` is light, so that the command line answers at once; a name's module is loaded
when the name is first used. Loading Keras, before or after, registers every class of this package
with it, so that `keras.saving.load_model` finds them.
"""

from soar_tf import _lazy

__version__ = "0.1.0"

_EXPORTS = {
    "RobustModel": "soar_tf.training",
    "SOARModel": "soar_tf.training",
    "attacks": "soar_tf.attacks",
    "callbacks": "soar_tf.callbacks",
    "check_second_order": "soar_tf.ops.second_order_check",
    "datasets": "soar_tf.datasets",
    "evaluate": "soar_tf.evaluation",
    "evaluation": "soar_tf.evaluation",
    "export": "soar_tf.saved_model",
    "methods": "soar_tf.methods",
    "networks": "soar_tf.networks",
    "ops": "soar_tf.ops",
    "theory": "soar_tf.theory",
    "zoo": "soar_tf.zoo",
}

__all__ = sorted([*_EXPORTS, "__version__"])


def __getattr__(name):
    return _lazy.load(__name__, _EXPORTS, name)


def __dir__():
    return __all__


_lazy.after_import(
    # TensorFlow imports Keras on its own way up, when soar_tf.training cannot use it yet.
    (
        "keras",
        "tensorflow",
        "soar_tf.attacks",
        "soar_tf.methods",
        "soar_tf.networks",
        "soar_tf.ops",
        "soar_tf.training",
    ),
    "soar_tf.training",
)
