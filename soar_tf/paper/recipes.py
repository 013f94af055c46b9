"""The networks of the paper: how each is trained, and for how long in each budget."""

import dataclasses
import math

from soar_tf.runs.config import TrainConfig
from soar_tf.validation import check_choice

BUDGETS = ("smoke", "short", "paper")
DATASETS = ("cifar10", "digits")


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much work an entry may do.

    Attributes:
        seeds: Default number of seeds.
        images: Number of test images; `None` for all.
        autoattack_images: Number of test images for AutoAttack.
        training_images: Number of training images; `None` for all.
    """

    seeds: int
    images: int | None
    autoattack_images: int
    training_images: int | None = None


LIMITS = {
    "smoke": Budget(seeds=1, images=32, autoattack_images=8, training_images=256),
    "short": Budget(seeds=2, images=1000, autoattack_images=1000),
    "paper": Budget(seeds=3, images=None, autoattack_images=1000),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one of the paper's networks is trained.

    Attributes:
        label: Display name in the tables.
        method: The training method.
        method_args: The method's arguments.
        starts_from: The network that it fine-tunes, or `None` if it is trained from scratch.
        network: Architecture; `None` for the data set's default.
        network_args: Arguments of the architecture.
        seed_offset: Added to the seed, so that a source differs from the networks it attacks.
        pixels: Maximum number of input coordinates, to which images are shrunk, or `None`.
        epochs: Epochs in budgets in which it trains for less time than its kind,
            `{budget: epochs}`.
        lr_drops: Epochs after which the paper's schedule drops the learning rate, in the budget
            `"paper"`; `None` for the paper's.
        monitors: What is logged after each epoch: `"penalty"`, `"robustness"`.
    """

    label: str
    method: str
    method_args: dict = dataclasses.field(default_factory=dict)
    starts_from: str | None = None
    network: str | None = None
    network_args: dict = dataclasses.field(default_factory=dict)
    seed_offset: int = 0
    pixels: int | None = None
    epochs: dict = dataclasses.field(default_factory=dict)
    lr_drops: tuple | None = None
    monitors: tuple = ()


def _soar(label, init, monitors=(), starts_from="standard"):
    return Recipe(label, "soar", {"init": init}, starts_from=starts_from, monitors=monitors)


def _weighted(lambda_):
    """A SOAR network for figure 3."""
    return Recipe(
        f"λ = {lambda_:g}",
        "soar",
        {"lambda_": lambda_},
        starts_from="standard",
        epochs={"short": 3},
        monitors=("robustness",),
    )


def _reading(label, epochs=15, **arguments):
    """A network for `readings`: one interpretation of SOAR's constants, on a short schedule."""
    drops = (epochs - 2,) if epochs > 2 else None
    length = {"short": min(3, epochs), "paper": epochs}
    return Recipe(label, "soar", arguments, starts_from="standard", epochs=length, lr_drops=drops)


def _small(label, method, activation, starts_from=None):
    """A network for section 4, with few enough input coordinates to try every corner."""
    return Recipe(
        label,
        method,
        starts_from=starts_from,
        network="mlp",
        pixels=12,
        network_args={"width": 0.25, "activation": activation},
    )


LAMBDAS = (0.0, 0.1, 0.5, 1.0)

# The method's epsilon is the data set's default (`soar_tf.datasets.defaults`): 8/255 on CIFAR-10.
RECIPES = {
    "standard": Recipe("Standard", "standard"),
    "adv7": Recipe("Adv7", "adversarial", {"steps": 7}),
    "adv1-scratch": Recipe("Adv1-scratch", "adversarial", {"steps": 1}),
    "adv1-pretrain": Recipe("Adv1-pretrain", "adversarial", {"steps": 1}, starts_from="standard"),
    "soar": _soar("SOAR", "pgd1", ("penalty",)),
    "soar-zero": _soar("SOAR, zero init", "zero"),
    "soar-random": _soar("SOAR, random init", "random"),
    "cnn-source": Recipe("CNN", "standard", seed_offset=100),
    "resnet18": Recipe(
        "ResNet18", "standard", network="resnet18", seed_offset=100, epochs={"short": 12}
    ),
    **{f"soar-lambda-{value:g}": _weighted(value) for value in LAMBDAS},
    "reading-example": _reading("Per example, PGD1 init"),
    "reading-example-zero": _reading("Per example, zero init", init="zero"),
    "reading-mean": _reading("Batch mean, PGD1 init", preset="batch_mean"),
    "reading-mean-zero": _reading("Batch mean, zero init", preset="batch_mean", init="zero"),
    "reading-sum": _reading("Batch sum, PGD1 init", epochs=1, norm_clip=1280.0),
    "standard-fixed": Recipe(
        "Standard, fixed scaling", "standard", network_args={"normalization": "fixed"}
    ),
    "soar-fixed": _soar("SOAR, fixed scaling", "pgd1", starts_from="standard-fixed"),
    "small-standard": _small("Standard (ReLU)", "standard", "relu"),
    "small-soar": _small("SOAR (ReLU)", "soar", "relu", starts_from="small-standard"),
    "small-smooth": _small("Standard (tanh)", "standard", "tanh"),
}

# Epochs in each budget, by kind: standard, adversarial from scratch, and fine-tuned. Those of the
# paper are from sections 5 and C; it gives no schedule for Adv1-pretrain, which gets SOAR's.
_EPOCHS = {
    "smoke": {"standard": 4, "adversarial": 2, "fine-tuned": 1},
    "short": {"standard": 24, "adversarial": 10, "fine-tuned": 10},
    "paper": {"standard": 200, "adversarial": 200, "fine-tuned": 150},
}
# On the digits an epoch takes a second or less.
_DIGITS_SHORT = {"standard": 30, "adversarial": 60, "fine-tuned": 60}

# Width factors; the small ones train in minutes on 2 cores.
_RESNET_WIDTHS = {"smoke": 0.0625, "short": 0.25, "paper": 1.0}
_SMOKE_NETWORKS = {
    "digits": {"network": "mlp", "network_args": {"width": 0.25}},
    "cifar10": {"network": "cnn4", "network_args": {"width": 0.125}},
}
# The authors standardise each image inside their networks, which the paper does not mention.
_PER_IMAGE = {"normalization": "per_image"}


def epochs(name, budget, dataset):
    """Epochs of a network's training, excluding the network that it starts from.

    Example:

    >>> from soar_tf.paper import recipes
    >>> recipes.epochs("soar", "paper", "cifar10")
    150
    """
    recipe = RECIPES[check_choice(name, "network", RECIPES)]
    kind = "fine-tuned" if recipe.starts_from else recipe.method
    small = dataset == "digits" or recipe.pixels is not None
    default = (_DIGITS_SHORT if budget == "short" and small else _EPOCHS[budget])[kind]
    return recipe.epochs.get(budget, default)


def image_size(name, image_shape):
    """The size that a network's images are shrunk to, `[height, width]`, or `None`.

    Args:
        name: The network's name.
        image_shape: The data set's `(H, W, C)`.
    """
    if (pixels := RECIPES[name].pixels) is None:
        return None
    side = math.isqrt(pixels // image_shape[2])
    return [side, side]


def config(
    name,
    seed,
    *,
    budget,
    dataset,
    data_dir=None,
    init_from=None,
    size=None,
    precision="float32",
    checkpoint_every=None,
):
    """The training configuration of a network, for `soar_tf.runs.experiment.Experiment`.

    Args:
        name: The network's name.
        seed: The seed, before the network's offset is added.
        budget: `"smoke"`, `"short"` or `"paper"`.
        dataset: Name of the data set.
        data_dir: Folder of tensorflow-datasets, or `None`.
        init_from: Run directory of the network that it starts from, or `None`.
        size: `[height, width]` to shrink images to, or `None`.
        precision: Compute precision, see `TrainConfig`.
        checkpoint_every: Interval of checkpoints within epochs, see `TrainConfig`.

    Returns:
        A `TrainConfig`.
    """
    recipe = RECIPES[check_choice(name, "network", RECIPES)]
    paper = budget == "paper"
    return TrainConfig(
        method=recipe.method,
        method_args=dict(recipe.method_args),
        dataset=dataset,
        data_dir=data_dir,
        image_size=size,
        # A fine-tuned network has the architecture of the one that it starts from.
        **({"network_args": {}} if init_from is not None else _network(recipe, budget, dataset)),
        init_from=None if init_from is None else str(init_from),
        epochs=epochs(name, budget, dataset),
        lr_schedule="paper" if paper else "onecycle",
        lr_drops=list(recipe.lr_drops) if paper and recipe.lr_drops else None,
        weight_decay=2e-4,
        weight_decay_type="coupled",
        seed=seed + recipe.seed_offset,
        limit=LIMITS[budget].training_images,
        # Nothing is selected by accuracy, so only figure 3 needs validation images, for its curves.
        validation_images=None if "robustness" in recipe.monitors else 0,
        precision=precision,
        checkpoint_every=checkpoint_every,
    )


def _network(recipe, budget, dataset):
    """The architecture settings of a network trained from scratch."""
    if recipe.network is None and budget == "smoke":
        network = _SMOKE_NETWORKS[dataset]
    elif recipe.network is None and dataset == "digits":
        return {}
    else:
        network = {"network": recipe.network or "cnn4", "network_args": recipe.network_args}
    arguments = {**network["network_args"], **recipe.network_args}
    if network["network"] == "resnet18":
        arguments["width"] = _RESNET_WIDTHS[budget]
    if network["network"] in ("cnn4", "resnet18") and dataset == "cifar10":
        arguments = _PER_IMAGE | arguments
    return {**network, "network_args": arguments}


def with_starts(names):
    """The networks and those that they start from, without duplicates, in training order.

    Example:

    >>> from soar_tf.paper import recipes
    >>> recipes.with_starts(["soar", "standard"])
    ['standard', 'soar']
    """
    ordered = []
    for name in names:
        start = RECIPES[name].starts_from
        ordered += [start, name] if start else [name]
    return list(dict.fromkeys(ordered))
