"""Table 7: Gaussian noise."""

import functools

from soar_tf.paper import measures

DATASET = "cifar10"
NETWORKS = ("standard", "adv7", "soar")
SIGMAS = ("0.05", "0.1", "0.15")


def report(study):
    """Measures accuracy on images with Gaussian noise, clipped to the pixel range."""
    columns = {
        sigma: functools.partial(
            measures.transformed, study, transformation=f"gaussian-noise:sigma={sigma}"
        )
        for sigma in SIGMAS
    }
    columns["autoattack"] = functools.partial(measures.accuracy, study, attack="autoattack")
    return measures.table(
        study, "table7", "Table 7: Gaussian noise", "Accuracy on images with Gaussian noise.",
        NETWORKS, columns, {sigma: f"σ = {sigma}" for sigma in SIGMAS},
    )  # fmt: skip
