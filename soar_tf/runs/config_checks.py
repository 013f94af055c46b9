"""Checks of a training configuration's values; each names the setting that is out of range."""

from soar_tf.datasets.mixing import check_mixup
from soar_tf.errors import InputError
from soar_tf.runs.train_settings import (
    MONITORS,
    OPTIMIZERS,
    ROBUST_MONITOR,
    SCHEDULES,
    WEIGHT_DECAY_TYPES,
)
from soar_tf.validation import PRECISIONS, check_choice, check_integer, check_number


def check_choices(config):
    """Checks the settings that are one of a few names."""
    check_choice(config.lr_schedule, "lr_schedule", SCHEDULES)
    check_choice(config.optimizer, "optimizer", OPTIMIZERS)
    check_choice(config.precision, "precision", PRECISIONS)
    check_choice(config.weight_decay_type, "weight_decay_type", WEIGHT_DECAY_TYPES)
    if config.weight_decay_type == "coupled" and config.optimizer == "adamw":
        raise InputError(
            "`weight_decay_type` must be 'decoupled' for the optimizer 'adamw', which is Adam "
            "with decoupled decay; 'adam' takes both. Received: 'coupled'."
        )


def check_ranges(config):
    for name in ("epochs", "batch_size"):
        setattr(config, name, check_integer(getattr(config, name), name, minimum=1))
    for name in ("pretrain_epochs", "validation_images"):
        if getattr(config, name) is not None:
            setattr(config, name, check_integer(getattr(config, name), name, minimum=0))
    # What Keras's generators take.
    config.seed = check_integer(config.seed, "seed", minimum=0, maximum=2**32 - 1)
    for name in (
        *("limit", "micro_batch", "cutout", "lr_warmup", "validation_limit"),
        *("resize_crop", "channels"),
    ):
        if getattr(config, name) is not None:
            setattr(config, name, check_integer(getattr(config, name), name, minimum=1))
    for name in ("learning_rate", "pretrain_learning_rate", "pixel_range"):
        if getattr(config, name) is None:
            continue
        value = check_number(getattr(config, name), name, minimum=0.0, exclusive=True)
        setattr(config, name, value)
    config.mixup = check_mixup(config.mixup)
    config.weight_decay = check_number(config.weight_decay, "weight_decay", minimum=0.0)
    # At 1, labels say nothing, and an average never leaves its first value.
    for name in ("label_smoothing", "ema"):
        if getattr(config, name) is not None:
            value = check_number(getattr(config, name), name, minimum=0.0, maximum=0.99999)
            setattr(config, name, value)


def check_drops(config, name, unit, before=None):
    """Checks where the paper's schedule drops; `before`: the end of the phase, if known."""
    given = getattr(config, name)
    if given is None:
        return
    if config.lr_schedule != "paper":
        raise InputError(
            f"`{name}` are for the schedule 'paper'. Received: {given} for {config.lr_schedule!r}."
        )
    drops = [check_integer(drop, name, minimum=1) for drop in given]
    late = before is not None and drops and drops[-1] >= before
    if not drops or drops != sorted(set(drops)) or late:
        of = "" if before is None else f" of {before} {unit}"
        raise InputError(
            f"`{name}` must be rising {unit}, each before the last one. Received: {given}{of}."
        )
    if name == "lr_drop_steps" and config.lr_drops is not None:
        raise InputError(
            "`lr_drop_steps` cannot be combined with `lr_drops`, which count epochs. "
            f"Received: {given} and {config.lr_drops}."
        )
    setattr(config, name, drops)


def check_selection(config):
    """Fills in and checks what early stopping, keep_best and stop_below go by."""
    needs = (
        "early_stopping",
        "keep_best",
        "stop_below",
        "monitor",
        "validation_attack",
        "validation_limit",
    )
    given = [name for name in needs if getattr(config, name) not in (None, False)]
    if config.validation_images == 0 and given:
        raise InputError(
            f"`validation_images` must not be 0 with `{given[0]}`, which needs validation "
            "images. Received: 0."
        )
    if config.deterministic and config.jit:
        raise InputError(
            "`deterministic` cannot be combined with `jit`: TensorFlow switches XLA off then."
        )
    selects = config.keep_best or (config.early_stopping, config.stop_below) != (None, None)
    if config.stop_below is not None:
        config.stop_below = check_number(config.stop_below, "stop_below", minimum=0.0, maximum=1.0)
    if config.early_stopping is not None:
        config.early_stopping = check_integer(config.early_stopping, "early_stopping", minimum=1)
    if config.monitor is None:
        if selects:
            config.monitor = ROBUST_MONITOR if config.validation_attack else "val_accuracy"
        return
    if not selects:
        raise InputError("`monitor` needs `early_stopping`, `keep_best` or `stop_below`.")
    check_choice(config.monitor, "monitor", MONITORS)
    if config.monitor == ROBUST_MONITOR and config.validation_attack is None:
        raise InputError(f"`monitor` {ROBUST_MONITOR!r} needs `validation_attack`.")
    if config.monitor == "val_loss" and config.stop_below is not None:
        raise InputError("`stop_below` needs an accuracy as `monitor`. Received: 'val_loss'.")


def check_lengths(config, steps_per_epoch):
    """Refuses a warm-up or drops that a phase is too short for.

    Args:
        steps_per_epoch: Steps of an epoch.

    Raises:
        InputError: For a warm-up or a drop that does not end before the phase.
    """
    lengths = {config.epochs * steps_per_epoch, config.pretrain_epochs * steps_per_epoch} - {0}
    if config.lr_warmup is not None and config.lr_warmup >= min(lengths):
        raise InputError(
            f"`lr_warmup` must be smaller than the {min(lengths)} steps of a phase. "
            f"Received: {config.lr_warmup}."
        )
    steps = config.epochs * steps_per_epoch
    if config.lr_drop_steps is not None and config.lr_drop_steps[-1] >= steps:
        raise InputError(
            f"`lr_drop_steps` must lie before the last of {steps} steps. "
            f"Received: {config.lr_drop_steps}."
        )
