"""How long the paper's networks take to train, from measured steps."""

from soar_tf.datasets import defaults
from soar_tf.paper import recipes

# Milliseconds per step of 128 CIFAR-10 images with the paper's CNN, by device, from
# docs/results/benchmarks/step.json (Adv1: those of `fast`, which has the same passes). Networks
# without an entry were not measured, and are reported as such.
STEP_MILLISECONDS = {
    "2 CPU cores": {
        **dict.fromkeys(("standard", "standard-fixed", "cnn-source"), 50),
        "adv7": 340,
        "adv1-scratch": 84,
        "adv1-pretrain": 84,
        **{name: 245 for name, recipe in recipes.RECIPES.items() if recipe.method == "soar"},
    },
}
_CIFAR10_TRAINING_IMAGES = 50_000


def expected_hours(names, *, budget, dataset, seeds):
    """Expected hours of training by device, before anything is trained.

    Args:
        names: Names of the networks, including those that they start from.
        budget, dataset: As for `recipes.config`.
        seeds: Number of seeds.

    Returns:
        Dictionary from devices to `(hours, names without a measured speed)`; empty for the digits,
        which take minutes.
    """
    if dataset != "cifar10" or budget == "smoke":
        return {}
    steps = -(-_CIFAR10_TRAINING_IMAGES // defaults.recipe(dataset)["batch_size"])
    expected = {}
    for device, speeds in STEP_MILLISECONDS.items():
        milliseconds = sum(
            speeds.get(name, 0) * steps * recipes.epochs(name, budget, dataset) * seeds
            for name in names
        )
        unknown = [
            name for name in names if name not in speeds and not recipes.RECIPES[name].pixels
        ]
        expected[device] = (milliseconds / 3.6e6, unknown)
    return expected
