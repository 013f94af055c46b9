"""Data sets: named ones, TensorFlow Datasets, .npz files and folders of images.

Importing this room loads neither TensorFlow nor Keras, so that the command line can list the names
at once.
"""

from soar_tf.datasets.dataset import SPLITS, Dataset, Split
from soar_tf.datasets.pipeline import evaluation_pipeline, training_pipeline
from soar_tf.datasets.sources import NAMES, describe, load
from soar_tf.datasets.tfds_source import tfds_folder

__all__ = [
    "NAMES",
    "SPLITS",
    "Dataset",
    "Split",
    "describe",
    "evaluation_pipeline",
    "load",
    "tfds_folder",
    "training_pipeline",
]
