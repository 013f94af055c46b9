"""Data sets: named ones, TensorFlow Datasets, .npz files and folders of images.

Importing this package loads neither TensorFlow nor NumPy, so that the command line answers at once.
"""

from soar_tf import _lazy

_EXPORTS = {
    "NAMES": "soar_tf.datasets.sources",
    "SPLITS": "soar_tf.datasets.dataset",
    "Dataset": "soar_tf.datasets.dataset",
    "Images": "soar_tf.datasets.images",
    "Split": "soar_tf.datasets.split",
    "describe": "soar_tf.datasets.sources",
    "evaluation_pipeline": "soar_tf.datasets.pipeline",
    "from_sequence": "soar_tf.datasets.sequence",
    "load": "soar_tf.datasets.sources",
    "tfds_folder": "soar_tf.datasets.tfds_source",
    "training_pipeline": "soar_tf.datasets.pipeline",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name):
    return _lazy.load(__name__, _EXPORTS, name)


def __dir__():
    return __all__
