"""A training run's configuration: every setting, resolved, as it stands in `config.toml`.

This module imports neither TensorFlow nor Keras, so that the command line can check its flags and
print its help at once.
"""

import dataclasses

from soar_tf.datasets.defaults import recipe, threat_model
from soar_tf.datasets.mixing import check_mixup
from soar_tf.errors import InputError
from soar_tf.runs import intervals
from soar_tf.validation import PRECISIONS, check_choice, check_integer, check_number

SCHEDULES = ("onecycle", "cosine", "paper", "constant")
OPTIMIZERS = ("sgd", "adam", "adamw")
WEIGHT_DECAY_TYPES = ("decoupled", "coupled")
# What an epoch can be chosen by: figures on validation data only.
ROBUST_MONITOR = "val_robust_accuracy"
MONITORS = ("val_loss", "val_accuracy", ROBUST_MONITOR)

# Peak learning rates of (training from scratch, fine-tuning a standard network) per schedule. What
# trains through second derivatives takes the second: at the first, their gradients explode.
_LEARNING_RATES = {
    "onecycle": (0.05, 0.01),
    "cosine": (0.05, 0.01),
    "paper": (0.01, 0.002),
    "constant": (0.01, 0.002),
}
_ADAPTIVE_LEARNING_RATES = (1e-3, 1e-4)


@dataclasses.dataclass
class TrainConfig:
    """Everything that determines a training run's result.

    Attributes:
        method: Registered method's name.
        method_args: The method's arguments; resolved to all of them once the run is set up.
        dataset: Data set's name or scheme, see `soar_tf.datasets`.
        data_dir: Folder of prepared tensorflow-datasets, or `None` for their default.
        image_size: `[height, width]` to resize images to, or `None`.
        resize_crop: Side in pixels of square crops: random resized ones in training, the central
            one in evaluation; or `None`.
        channels: 1 turns colour into grey, 3 grey into colour; `None` keeps what there is.
        orientation: Whether images of a folder are turned as their EXIF orientation says.
        network: Registered network's name, or the path of a `.keras` file.
        network_args: The network's arguments.
        init_from: Model to start from: a run directory or a `.keras` file, or `None`.
        pixel_range: The pixel value that stands for white where a loaded `.keras` network takes
            others than [0, 1], such as 255; `None`: it takes [0, 1].
        pretrain_epochs: Epochs of standard training before a method that fine-tunes.
        epochs: Epochs of the method.
        batch_size: Images per step.
        micro_batch: Images that go through the network together, or `None` for the whole batch.
        learning_rate: Peak learning rate of the method's phase.
        pretrain_learning_rate: Peak learning rate of the standard phase.
        lr_schedule: `"onecycle"` (warm-up and cosine), `"cosine"` (without a warm-up), `"paper"`
            (drops by ten) or `"constant"`.
        lr_warmup: Steps in which the learning rate rises to its peak at the beginning of each
            phase; `None`: 30 % of the phase for `"onecycle"`, none for the others.
        lr_drops: Epochs of the method's phase after which the schedule `"paper"` divides the rate
            by ten; `None`: where the paper does, in proportion to the number of epochs.
        lr_drop_steps: The same as numbers of steps, instead of epochs; `None`: by epochs.
        optimizer: `"sgd"` (momentum 0.9), `"adam"` or `"adamw"`.
        weight_decay: Weight decay.
        weight_decay_type: `"decoupled"`: Keras's, rate times decay times weight off each weight;
            or `"coupled"`: added to the gradient, as in most papers. With SGD's momentum of 0.9 the
            coupled one is 1/(1 - 0.9) = 10 times stronger at the same number.
        label_smoothing: Share of the label's weight that is spread over all classes, in [0, 1);
            `None`: none.
        ema: Momentum of the weights' moving average, which is validated and kept; `None`: none.
        awp: Size of the adversarial weight perturbation, see `soar_tf.RobustModel`: a number, a
            schedule's text, or `None`.
        seed: Seed of weights, order, augmentation and noise.
        limit: Number of training images used, or `None` for all; which, see
            `soar_tf.datasets.Split.take`.
        validation_images: Number of training images set apart for validation where the data set has
            no validation split; 0: none, so that all are trained on; `None`: a tenth.
        augment: Whether to crop and flip; `None` for the data set's habit.
        cutout: Side in pixels of the grey square laid over each training image; `None`: none.
        mixup: The number a of Beta(a, a), in (0, 100], by whose draws training images and their
            labels are mixed in pairs; `None`: they are not.
        jit: Whether to compile with XLA; `None` lets Keras choose.
        precision: What the network computes in while it trains: `"float32"`, `"mixed_bfloat16"` or
            `"mixed_float16"`; curvature and the saved network stay in float32.
        deterministic: Whether TensorFlow must refuse operations that could give other bits.
        early_stopping: Epochs without improvement of `monitor` after which the method's phase
            ends, or `None`.
        keep_best: Whether the result is the epoch of the method's phase with the best `monitor`,
            and not the last one.
        stop_below: Share of the best `monitor` so far, an accuracy: an epoch below it ends the
            method's phase, whose result is the best epoch then; `None`: never.
        monitor: What counts as better, on validation data: `"val_loss"`, `"val_accuracy"` or, with
            `validation_attack`, `"val_robust_accuracy"`.
        validation_attack: Attack on validation images after every epoch of the method's phase,
            such as `"pgd10"`, or `None`.
        validation_limit: Number of validation images that are looked at after each epoch, drawn at
            random with the seed 0, the same in every epoch and run; `None`: all, of which
            `validation_attack` attacks the first 1000.
        checkpoint_every: When to write checkpoints within epochs, too: a number of steps, or a time
            such as `"10m"` (see `soar_tf.runs.intervals`); `None`: after each epoch only. The
            result does not depend on it, and a run may be resumed with another one.
    """

    method: str = "soar"
    method_args: dict = dataclasses.field(default_factory=dict)
    dataset: str = "digits"
    data_dir: str | None = None
    image_size: list | None = None
    resize_crop: int | None = None
    channels: int | None = None
    orientation: bool = True
    network: str | None = None
    network_args: dict = dataclasses.field(default_factory=dict)
    init_from: str | None = None
    pixel_range: float | None = None
    pretrain_epochs: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    micro_batch: int | None = None
    learning_rate: float | None = None
    pretrain_learning_rate: float | None = None
    lr_schedule: str = "onecycle"
    lr_warmup: int | None = None
    lr_drops: list | None = None
    lr_drop_steps: list | None = None
    optimizer: str = "sgd"
    weight_decay: float = 2e-4
    weight_decay_type: str = "decoupled"
    label_smoothing: float | None = None
    ema: float | None = None
    awp: float | str | None = None
    seed: int = 0
    limit: int | None = None
    validation_images: int | None = None
    augment: bool | None = None
    cutout: int | None = None
    mixup: float | None = None
    jit: bool | None = None
    precision: str = "float32"
    deterministic: bool = False
    early_stopping: int | None = None
    keep_best: bool = False
    stop_below: float | None = None
    monitor: str | None = None
    validation_attack: str | None = None
    validation_limit: int | None = None
    checkpoint_every: int | str | None = None

    def resolved(self, *, fine_tunes, second_order=False, usual=None):
        """Returns a copy with every default filled in, after checking every value.

        Args:
            fine_tunes: Whether the method starts from a standard network.
            second_order: Whether it trains through second derivatives.
            usual: The method's own defaults of further settings, `{name: value}`, or `None`.

        Raises:
            InputError: If a value is out of range.
        """
        config = dataclasses.replace(self)
        # A watch over validation images cannot be a default where there are none.
        usual = {} if config.validation_images == 0 else dict(usual or {})
        defaults = {**usual, **recipe(config.dataset)}
        for name in ("network", "epochs", "batch_size", *usual):
            if getattr(config, name) is None:
                setattr(config, name, defaults[name])
        if config.init_from is not None and config.pretrain_epochs:
            raise InputError("`pretrain_epochs` cannot be combined with `init_from`.")
        if not fine_tunes and config.pretrain_epochs:
            raise InputError(
                f"`pretrain_epochs` is for methods that fine-tune, such as soar. "
                f"Received: {config.pretrain_epochs} for method {config.method!r}."
            )
        if config.pretrain_epochs is None:
            pretrains = fine_tunes and config.init_from is None
            config.pretrain_epochs = defaults["pretrain_epochs"] if pretrains else 0
        check_choice(config.lr_schedule, "lr_schedule", SCHEDULES)
        check_choice(config.optimizer, "optimizer", OPTIMIZERS)
        check_choice(config.precision, "precision", PRECISIONS)
        check_choice(config.weight_decay_type, "weight_decay_type", WEIGHT_DECAY_TYPES)
        if config.weight_decay_type == "coupled" and config.optimizer == "adamw":
            raise InputError(
                "`weight_decay_type` must be 'decoupled' for the optimizer 'adamw', which is Adam "
                "with decoupled decay; 'adam' takes both. Received: 'coupled'."
            )
        rates = _LEARNING_RATES[config.lr_schedule]
        if config.optimizer != "sgd":
            rates = _ADAPTIVE_LEARNING_RATES
        gentle = second_order or config.init_from is not None or config.pretrain_epochs > 0
        if config.learning_rate is None:
            config.learning_rate = rates[1 if gentle else 0]
        if config.pretrain_learning_rate is None:
            config.pretrain_learning_rate = rates[0]
        config._check_ranges()
        config._check_drops("lr_drops", "epochs", before=config.epochs)
        config._check_drops("lr_drop_steps", "steps")
        config._check_selection()
        if config.checkpoint_every is not None:
            interval = intervals.parse(config.checkpoint_every)
            config.checkpoint_every = interval.steps or config.checkpoint_every
        return config

    def default_epsilon(self, norm="linf", *, warms_up):
        """The epsilon of a method that was given none: the data set's, or a schedule up to it.

        Args:
            norm: The method's norm.
            warms_up: Whether the method attacks a network without training. The paper's schedule
                has no warm-up.
        """
        defaults, epsilon = recipe(self.dataset), threat_model(self.dataset, norm).epsilon
        epochs = defaults["epochs"] if self.epochs is None else self.epochs
        length = defaults["epsilon_warmup"] * check_integer(epochs, "epochs", minimum=1)
        if not warms_up or self.lr_schedule == "paper" or length == 0:
            return epsilon
        return f"ramp(0, {epsilon}, epochs={length:g})"

    def _check_ranges(self):
        for name in ("epochs", "batch_size"):
            setattr(self, name, check_integer(getattr(self, name), name, minimum=1))
        for name in ("pretrain_epochs", "validation_images"):
            if getattr(self, name) is not None:
                setattr(self, name, check_integer(getattr(self, name), name, minimum=0))
        # What Keras's generators take.
        self.seed = check_integer(self.seed, "seed", minimum=0, maximum=2**32 - 1)
        for name in (
            *("limit", "micro_batch", "cutout", "lr_warmup", "validation_limit"),
            *("resize_crop", "channels"),
        ):
            if getattr(self, name) is not None:
                setattr(self, name, check_integer(getattr(self, name), name, minimum=1))
        for name in ("learning_rate", "pretrain_learning_rate", "pixel_range"):
            if getattr(self, name) is None:
                continue
            value = check_number(getattr(self, name), name, minimum=0.0, exclusive=True)
            setattr(self, name, value)
        self.mixup = check_mixup(self.mixup)
        self.weight_decay = check_number(self.weight_decay, "weight_decay", minimum=0.0)
        # At 1, labels say nothing, and an average never leaves its first value.
        for name in ("label_smoothing", "ema"):
            if getattr(self, name) is not None:
                value = check_number(getattr(self, name), name, minimum=0.0, maximum=0.99999)
                setattr(self, name, value)

    def _check_drops(self, name, unit, before=None):
        """Checks where the paper's schedule drops; `before`: the end of the phase, if known."""
        given = getattr(self, name)
        if given is None:
            return
        if self.lr_schedule != "paper":
            raise InputError(
                f"`{name}` are for the schedule 'paper'. "
                f"Received: {given} for {self.lr_schedule!r}."
            )
        drops = [check_integer(drop, name, minimum=1) for drop in given]
        late = before is not None and drops and drops[-1] >= before
        if not drops or drops != sorted(set(drops)) or late:
            of = "" if before is None else f" of {before} {unit}"
            raise InputError(
                f"`{name}` must be rising {unit}, each before the last one. Received: {given}{of}."
            )
        if name == "lr_drop_steps" and self.lr_drops is not None:
            raise InputError(
                "`lr_drop_steps` cannot be combined with `lr_drops`, which count epochs. "
                f"Received: {given} and {self.lr_drops}."
            )
        setattr(self, name, drops)

    def check_lengths(self, steps_per_epoch):
        """Refuses a warm-up or drops that a phase is too short for.

        Args:
            steps_per_epoch: Steps of an epoch.

        Raises:
            InputError: For a warm-up or a drop that does not end before the phase.
        """
        lengths = {self.epochs * steps_per_epoch, self.pretrain_epochs * steps_per_epoch} - {0}
        if self.lr_warmup is not None and self.lr_warmup >= min(lengths):
            raise InputError(
                f"`lr_warmup` must be smaller than the {min(lengths)} steps of a phase. "
                f"Received: {self.lr_warmup}."
            )
        steps = self.epochs * steps_per_epoch
        if self.lr_drop_steps is not None and self.lr_drop_steps[-1] >= steps:
            raise InputError(
                f"`lr_drop_steps` must lie before the last of {steps} steps. "
                f"Received: {self.lr_drop_steps}."
            )

    def _check_selection(self):
        """Fills in and checks what early stopping, keep_best and stop_below go by."""
        needs = (
            "early_stopping",
            "keep_best",
            "stop_below",
            "monitor",
            "validation_attack",
            "validation_limit",
        )
        given = [name for name in needs if getattr(self, name) not in (None, False)]
        if self.validation_images == 0 and given:
            raise InputError(
                f"`validation_images` must not be 0 with `{given[0]}`, which needs validation "
                "images. Received: 0."
            )
        if self.deterministic and self.jit:
            raise InputError(
                "`deterministic` cannot be combined with `jit`: TensorFlow switches XLA off then."
            )
        selects = self.keep_best or (self.early_stopping, self.stop_below) != (None, None)
        if self.stop_below is not None:
            self.stop_below = check_number(self.stop_below, "stop_below", minimum=0.0, maximum=1.0)
        if self.early_stopping is not None:
            self.early_stopping = check_integer(self.early_stopping, "early_stopping", minimum=1)
        if self.monitor is None:
            if selects:
                self.monitor = ROBUST_MONITOR if self.validation_attack else "val_accuracy"
            return
        if not selects:
            raise InputError("`monitor` needs `early_stopping`, `keep_best` or `stop_below`.")
        check_choice(self.monitor, "monitor", MONITORS)
        if self.monitor == ROBUST_MONITOR and self.validation_attack is None:
            raise InputError(f"`monitor` {ROBUST_MONITOR!r} needs `validation_attack`.")
        if self.monitor == "val_loss" and self.stop_below is not None:
            raise InputError("`stop_below` needs an accuracy as `monitor`. Received: 'val_loss'.")

    def to_dict(self):
        """The configuration without what is `None` (TOML has no null)."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    def differences(self, other):
        """The names of the settings in which `other` (a dictionary) differs.

        A setting that `other` does not have yet, being older, has its default there. Settings on
        which the result does not depend are left out.
        """
        mine = self.to_dict()
        defaults = TrainConfig().to_dict()
        names = (mine.keys() | other.keys()) - {"checkpoint_every"}
        return sorted(k for k in names if mine.get(k) != other.get(k, defaults.get(k)))
