"""A training run's configuration: every setting, resolved, as it stands in `config.toml`.

This module imports neither TensorFlow nor Keras, so that the command line can check its flags and
print its help at once.
"""

import dataclasses
import tomllib

from soar_tf import files
from soar_tf.datasets.defaults import recipe, threat_model
from soar_tf.errors import InputError, unknown
from soar_tf.validation import PRECISIONS, check_choice, check_integer, check_number

SCHEDULES = ("onecycle", "paper", "constant")
OPTIMIZERS = ("sgd", "adam", "adamw")
WEIGHT_DECAY_TYPES = ("decoupled", "coupled")
# What an epoch can be chosen by: figures on validation data only.
ROBUST_MONITOR = "val_robust_accuracy"
MONITORS = ("val_loss", "val_accuracy", ROBUST_MONITOR)
MAX_TOML_BYTES = 2**20

# Peak learning rates of (training from scratch, fine-tuning a standard network) per schedule. What
# trains through second derivatives takes the second: at the first, their gradients explode.
_LEARNING_RATES = {"onecycle": (0.05, 0.01), "paper": (0.01, 0.002), "constant": (0.01, 0.002)}
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
        lr_schedule: `"onecycle"` (warm-up and cosine), `"paper"` (drops by ten) or `"constant"`.
        lr_drops: Epochs of the method's phase after which the schedule `"paper"` divides the rate
            by ten; `None`: where the paper does, in proportion to the number of epochs.
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
    lr_drops: list | None = None
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
    jit: bool | None = None
    precision: str = "float32"
    deterministic: bool = False
    early_stopping: int | None = None
    keep_best: bool = False
    stop_below: float | None = None
    monitor: str | None = None
    validation_attack: str | None = None

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
        config._check_drops()
        config._check_selection()
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
        for name in ("pretrain_epochs", "seed", "validation_images"):
            if getattr(self, name) is not None:
                setattr(self, name, check_integer(getattr(self, name), name, minimum=0))
        check_number(self.seed, "seed", maximum=2**32 - 1)  # what Keras's generators take
        for name in ("limit", "micro_batch", "cutout", "resize_crop", "channels"):
            if getattr(self, name) is not None:
                setattr(self, name, check_integer(getattr(self, name), name, minimum=1))
        for name in ("learning_rate", "pretrain_learning_rate", "pixel_range"):
            if getattr(self, name) is None:
                continue
            value = check_number(getattr(self, name), name, minimum=0.0, exclusive=True)
            setattr(self, name, value)
        self.weight_decay = check_number(self.weight_decay, "weight_decay", minimum=0.0)
        # At 1, labels say nothing, and an average never leaves its first value.
        for name in ("label_smoothing", "ema"):
            if getattr(self, name) is not None:
                value = check_number(getattr(self, name), name, minimum=0.0, maximum=0.99999)
                setattr(self, name, value)

    def _check_drops(self):
        if self.lr_drops is None:
            return
        if self.lr_schedule != "paper":
            raise InputError(
                "`lr_drops` are for the schedule 'paper'. "
                f"Received: {self.lr_drops} for {self.lr_schedule!r}."
            )
        drops = [check_integer(drop, "lr_drops", minimum=1) for drop in self.lr_drops]
        if not drops or drops != sorted(set(drops)) or drops[-1] >= self.epochs:
            raise InputError(
                "`lr_drops` must be rising epochs, each before the last one. "
                f"Received: {self.lr_drops} of {self.epochs} epochs."
            )
        self.lr_drops = drops

    def _check_selection(self):
        """Fills in and checks what early stopping, keep_best and stop_below go by."""
        needs = ("early_stopping", "keep_best", "stop_below", "monitor", "validation_attack")
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

        A setting that `other` does not have yet, being older, has its default there.
        """
        mine = self.to_dict()
        defaults = TrainConfig().to_dict()
        return sorted(
            k for k in mine.keys() | other.keys() if mine.get(k) != other.get(k, defaults.get(k))
        )


def read_toml(path):
    """Reads a configuration file.

    Args:
        path: A TOML file whose keys are `TrainConfig`'s fields.

    Returns:
        A dictionary.

    Raises:
        InputError: If it is no regular file, cannot be read, is no TOML, or holds an unknown key
            or a wrong type.
    """
    try:
        content = files.read_bytes(path, f"`config` {path!s}", MAX_TOML_BYTES)
        values = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise InputError(f"`config` {path!s} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, too
        raise InputError(f"`config` {path!s} is not valid TOML: {error}.") from None
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    for key, value in values.items():
        if key not in fields:
            raise unknown(f"key in {path!s}:", key, fields)
        _check_type(path, key, value, fields[key].type)
    return values


_TYPES = {int: "an integer", float: "a number", str: "a string", bool: "true or false",
          dict: "a table", list: "an array"}  # fmt: skip


def _check_type(path, key, value, annotation):
    wanted = [kind for kind in _TYPES if kind in getattr(annotation, "__args__", (annotation,))]
    if float in wanted and isinstance(value, int) and not isinstance(value, bool):
        return
    if isinstance(value, bool) != (bool in wanted) or not isinstance(value, tuple(wanted)):
        raise InputError(
            f"`{key}` in {path!s} must be {' or '.join(_TYPES[k] for k in wanted)}. "
            f"Received: {value!r}."
        )
