"""Figure 4: the loss along perturbations of more training images."""

from soar_tf.paper import line

DATASET = "cifar10"
NETWORKS = (line.NETWORK,)
PANELS = 4


def report(study):
    """Draws four images; see `soar_tf.paper.line`."""
    return line.report(study, PANELS, "Figure 4: the loss along a perturbation")
