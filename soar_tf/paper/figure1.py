"""Figure 1: the loss along a perturbation of one training image."""

from soar_tf.paper import line

DATASET = "cifar10"
NETWORKS = (line.NETWORK,)
PANELS = 1


def report(study):
    """Draws one image; see `soar_tf.paper.line`."""
    return line.report(study, PANELS, "Figure 1: the loss along a perturbation")
