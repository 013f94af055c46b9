"""Keras training: one engine for every method."""

from soar_tf.training.losses import SmoothedCrossentropy
from soar_tf.training.optimizers import CoupledAdam, CoupledSGD
from soar_tf.training.robust_model import RobustModel
from soar_tf.training.soar_model import SOARModel

__all__ = ["CoupledAdam", "CoupledSGD", "RobustModel", "SOARModel", "SmoothedCrossentropy"]
