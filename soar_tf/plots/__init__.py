"""Figures from plain data, as matplotlib `Figure`s; one plot per file.

matplotlib is optional: `pip install 'soar-tf[plots]'`.
"""

from soar_tf.plots.accuracy_epsilon import accuracy_epsilon
from soar_tf.plots.adversarial_examples import adversarial_examples
from soar_tf.plots.figures import available, save, to_png
from soar_tf.plots.loss_direction import loss_direction
from soar_tf.plots.loss_surface import loss_surface
from soar_tf.plots.training_curves import training_curves
from soar_tf.plots.transfer_heat_map import transfer_heat_map

__all__ = [
    "accuracy_epsilon",
    "adversarial_examples",
    "available",
    "loss_direction",
    "loss_surface",
    "save",
    "to_png",
    "training_curves",
    "transfer_heat_map",
]
