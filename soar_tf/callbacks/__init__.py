"""Keras callbacks that measure robustness during `fit`, one per file, each independent.

They work with any Keras classifier that gives logits, and attack the network inside a
`RobustModel`. The callbacks listed after them see what they write into the epoch's logs.
"""

from soar_tf.callbacks.adversarial_examples import AdversarialExamples
from soar_tf.callbacks.catastrophic_overfitting import CatastrophicOverfitting
from soar_tf.callbacks.curvature_monitor import CurvatureMonitor
from soar_tf.callbacks.every_steps import EverySteps
from soar_tf.callbacks.gradient_masking import GradientMasking
from soar_tf.callbacks.robust_accuracy import RobustAccuracy
from soar_tf.callbacks.transfer_accuracy import TransferAccuracy

__all__ = [
    "AdversarialExamples",
    "CatastrophicOverfitting",
    "CurvatureMonitor",
    "EverySteps",
    "GradientMasking",
    "RobustAccuracy",
    "TransferAccuracy",
]
