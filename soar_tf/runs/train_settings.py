"""The settings of a training run: their names, defaults, allowed values and help.

This module imports nothing heavy, so that the command line prints its help at once.
"""

import dataclasses

from soar_tf import registry
from soar_tf.runs.settings import LIMIT, ImageSettings, same_as, setting
from soar_tf.validation import PRECISIONS

SCHEDULES = ("onecycle", "cosine", "paper", "constant")
OPTIMIZERS = ("sgd", "adam", "adamw")
WEIGHT_DECAY_TYPES = ("decoupled", "coupled")
# What an epoch can be chosen by: results on validation data only.
ROBUST_MONITOR = "val_robust_accuracy"
MONITORS = ("val_loss", "val_accuracy", ROBUST_MONITOR)


@dataclasses.dataclass
class TrainSettings:
    """The fields of `soar_tf.runs.config.TrainConfig`; each field's help says what it is."""

    method: str = setting(
        "soar",
        "Training method: soar, standard, adversarial; see `soar-tf list methods`.",
        type=registry.METHODS,
        metavar="NAME",
    )
    # All arguments of the method, once a run is set up.
    method_args: dict = setting(
        {},
        "Argument of the method, such as epsilon=8/255 or steps=7, or a schedule, such as "
        "'lambda_=ramp(0, 0.5, epochs=5)' or 'h=stairs(.1, .4, .8, 1.8, 3)'. Repeatable.",
        type="pairs",
        option="method-arg",
    )
    dataset: str = same_as(ImageSettings, "dataset", "digits")
    data_dir: str | None = same_as(ImageSettings, "data_dir", None)
    image_size: list | None = same_as(ImageSettings, "image_size", None)
    resize_crop: int | None = same_as(ImageSettings, "resize_crop", None)
    channels: int | None = same_as(ImageSettings, "channels", None)
    orientation: bool = same_as(ImageSettings, "orientation", True)
    network: str | None = setting(
        None,
        "Network: cnn4, cnn2, mlp, resnet18, preact_resnet18, wide_resnet, or a .keras file.",
        type=registry.NETWORKS,
        metavar="NAME|FILE",
        unset="by data set",
    )
    network_args: dict = setting(
        {},
        "Argument of the network, such as width=0.5. Repeatable.",
        type="pairs",
        option="network-arg",
    )
    init_from: str | None = setting(
        None,
        "Start from a run directory, a .keras file or zoo:NAME.",
        type="model",
        metavar="MODEL",
        unset="a new network",
    )
    pixel_range: float | None = setting(
        None,
        "The value that white has for a .keras file of --network or --init-from that takes other "
        "pixels than [0, 1], such as 255.",
        type="number",
        metavar="WHITE",
        unset="1",
    )
    pretrain_epochs: int | None = setting(
        None,
        "Epochs of standard training first, for methods that fine-tune.",
        type="natural",
        unset="24; digits: 30",
    )
    epochs: int | None = setting(
        None, "Epochs of the method.", type="positive", unset="15; digits: 60"
    )
    batch_size: int | None = setting(
        None, "Images per step.", type="positive", unset="128; digits: 64"
    )
    micro_batch: int | None = setting(
        None,
        "Put at most N images through the network together, to save memory; a step still takes "
        "the whole batch.",
        type="positive",
        metavar="N",
        unset="all",
    )
    learning_rate: float | None = setting(
        None,
        "Peak learning rate of the method.",
        type="number",
        unset="with sgd onecycle and cosine 0.05, paper and constant 0.01, adam 1e-3; fine-tuning "
        "or through second derivatives 0.01, 0.002 and 1e-4",
    )
    pretrain_learning_rate: float | None = setting(
        None,
        "Peak learning rate of standard training.",
        type="number",
        unset="as for training from scratch",
    )
    lr_schedule: str = setting(
        "onecycle",
        "onecycle: warm-up and cosine; cosine: without a warm-up; paper: two drops by 10.",
        type=SCHEDULES,
    )
    lr_warmup: int | None = setting(
        None,
        "Let the rate rise to its peak in so many steps, at the beginning of each phase.",
        type="positive",
        metavar="STEPS",
        unset="onecycle: 30 % of the phase; others: none",
    )
    lr_drops: list | None = setting(
        None,
        "With --lr-schedule paper: divide the rate by 10 after this epoch of the method. "
        "Repeatable.",
        type="positive",
        metavar="EPOCH",
        option="lr-drop",
        multiple=True,
        unset="in proportion to the paper's epochs",
    )
    lr_drop_steps: list | None = setting(
        None,
        "The same after this training step of the method, instead of an epoch. Repeatable.",
        type="positive",
        metavar="STEP",
        option="lr-drop-step",
        multiple=True,
        unset="by epochs",
    )
    optimizer: str = setting("sgd", "Optimizer.", type=OPTIMIZERS)  # sgd has a momentum of 0.9
    weight_decay: float = setting(2e-4, "Weight decay.", type="number")
    weight_decay_type: str = setting(
        "decoupled",
        "decoupled: off the weights, outside momentum, as in Keras; coupled: added to the "
        "gradient, as in most papers. With sgd's momentum of 0.9 the coupled one is 1/(1 - 0.9) = "
        "10 times stronger at the same number.",
        type=WEIGHT_DECAY_TYPES,
    )
    label_smoothing: float | None = setting(
        None,
        "Share of the label's weight spread over all classes.",
        type="number",
        unset="0",
    )
    ema: float | None = setting(
        None,
        "Average the weights over steps, such as 0.999; the average is validated and kept.",
        type="number",
        metavar="MOMENTUM",
        unset="none",
    )
    awp: float | str | None = setting(
        None,
        "Adversarial weight perturbation: take each gradient where every kernel is moved up its "
        "gradient by this share of its length, such as 0.01, or by a schedule. Nearly doubles a "
        "step.",
        type="schedule",
        metavar="SIZE",
        unset="none",
    )
    seed: int = setting(0, "Seed of everything.", type="natural")
    limit: int | None = setting(None, LIMIT.format("training images"), type="positive", unset="all")
    validation_images: int | None = setting(
        None,
        "Set so many training images apart for validation; 0: train on all of them.",
        type="natural",
        metavar="N",
        unset="a tenth, where the data set has no validation split",
    )
    augment: bool | None = setting(
        None, "Random crops and flips.", type="switch", unset="by data set"
    )
    cutout: int | None = setting(
        None,
        "Lay a grey square of this side over each training image, anew in every epoch.",
        type="positive",
        metavar="PIXELS",
        unset="none",
    )
    mixup: float | None = setting(
        None,
        "Mix training images and their labels in pairs, in shares drawn from Beta(A, A), such as "
        "0.2; comes after cropping and cutout.",
        type="number",
        metavar="A",
        unset="none",
    )
    jit: bool | None = setting(None, "Compile with XLA.", type="switch", unset="on a GPU only")
    precision: str = setting(
        "float32",
        "Compute precision of training; curvature and the saved network stay in float32.",
        type=PRECISIONS,
    )
    early_stopping: int | None = setting(
        None,
        "End the method's phase after so many epochs without a better --monitor.",
        type="positive",
        metavar="PATIENCE",
        unset="never",
    )
    keep_best: bool = setting(
        False,
        "The result is the epoch with the best --monitor, or the last.",
        type="switch",
        option="keep-best/--keep-last",
        unset="the last",
    )
    stop_below: float | None = setting(
        None,
        "End the method's phase, with its best epoch, once --monitor is below this share of its "
        "best.",
        type="number",
        metavar="SHARE",
        unset="one-step methods: 0.5; others: never",
    )
    monitor: str | None = setting(
        None,
        "Figure on validation data for the three above.",
        type=MONITORS,
        unset="val_robust_accuracy with --validation-attack, else val_accuracy",
    )
    validation_attack: str | None = setting(
        None,
        "Attack 1000 validation images after every epoch and log val_robust_accuracy.",
        metavar="NAME[:k=v,...]",
        unset="one-step methods: pgd5; others: none",
    )
    validation_limit: int | None = setting(
        None,
        "After each epoch, look at N validation images only: a random draw, always the same.",
        type="positive",
        metavar="N",
        unset="all; 1000 for --validation-attack",
    )
    # The result does not depend on it, and a run may be resumed with another one.
    checkpoint_every: int | str | None = setting(
        None,
        "Write checkpoints within epochs, too: every so many steps, or after 90s, 10m or 1h; and "
        "at Ctrl-C or SIGTERM. The result is the same.",
        metavar="STEPS|TIME",
        unset="after each epoch only",
    )
    deterministic: bool = setting(
        False,
        "Let TensorFlow refuse what could give other bits.",
        type="switch",
        option="deterministic/--not-deterministic",
        unset="not",
    )
