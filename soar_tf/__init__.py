"""soar-tf: adversarially robust training and honest robustness evaluation for Keras 3.

`import soar_tf` is light, so that the command line answers at once; a name's module is loaded
when the name is first used. Loading Keras, before or after, registers every class of this package
with it, so that `keras.saving.load_model` finds them.
"""

from soar_tf import _lazy

__version__ = "0.2.0"

_EXPORTS = {
    "RobustModel": "soar_tf.training",
    "SOARModel": "soar_tf.training",
    "attacks": "soar_tf.attacks",
    "callbacks": "soar_tf.callbacks",
    "corruptions": "soar_tf.corruptions",
    "check_second_order": "soar_tf.second_order.check",
    "datasets": "soar_tf.datasets",
    "evaluate": "soar_tf.evaluation",
    "evaluation": "soar_tf.evaluation",
    "export": "soar_tf.models.exports",
    "methods": "soar_tf.methods",
    "networks": "soar_tf.models.networks",
    "ops": "soar_tf.ops",
    "probe": "soar_tf.evaluation",
    "theory": "soar_tf.theory",
    "zoo": "soar_tf.models.zoo",
}

# Modules under the names that they had in version 0.1.
_MOVED = {
    "soar_tf.config": "soar_tf.runs.config",
    "soar_tf.model_files": "soar_tf.models.loading",
    "soar_tf.networks": "soar_tf.models.networks",
    "soar_tf.ops.bounds": "soar_tf.theory.bounds",
    "soar_tf.ops.second_order_check": "soar_tf.second_order.check",
    "soar_tf.presets": "soar_tf.runs.presets",
    "soar_tf.saved_model": "soar_tf.models.saved_model",
    "soar_tf.zoo": "soar_tf.models.zoo",
}

__all__ = sorted([*_EXPORTS, "__version__"])


def __getattr__(name):
    return _lazy.load(__name__, _EXPORTS, name)


def __dir__():
    return __all__


_lazy.rename(_MOVED)
_lazy.after_import(
    # TensorFlow imports Keras on its own way up, when soar_tf.training cannot use it yet.
    (
        "keras",
        "tensorflow",
        "soar_tf.attacks",
        "soar_tf.methods",
        "soar_tf.models.networks",
        "soar_tf.models.precision",
        "soar_tf.ops",
        "soar_tf.second_order",
        "soar_tf.training",
    ),
    "soar_tf.training",
)
