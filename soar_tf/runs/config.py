"""A training run's configuration: every setting, resolved, as it stands in `config.toml`.

This module imports neither TensorFlow nor Keras, so that the command line can check its flags and
print its help at once.
"""

import dataclasses

from soar_tf.datasets.defaults import recipe, threat_model
from soar_tf.errors import InputError
from soar_tf.runs import config_checks, intervals
from soar_tf.runs.train_settings import TrainSettings
from soar_tf.validation import check_integer

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
class TrainConfig(TrainSettings):
    """Everything that determines a training run's result; the fields are `TrainSettings`'.

    Example:

    >>> from soar_tf.runs.config import TrainConfig
    >>> TrainConfig(method="adversarial").resolved(fine_tunes=False).epochs
    60
    """

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
        config_checks.check_choices(config)
        rates = _LEARNING_RATES[config.lr_schedule]
        if config.optimizer != "sgd":
            rates = _ADAPTIVE_LEARNING_RATES
        gentle = second_order or config.init_from is not None or config.pretrain_epochs > 0
        if config.learning_rate is None:
            config.learning_rate = rates[1 if gentle else 0]
        if config.pretrain_learning_rate is None:
            config.pretrain_learning_rate = rates[0]
        config_checks.check_ranges(config)
        config_checks.check_drops(config, "lr_drops", "epochs", before=config.epochs)
        config_checks.check_drops(config, "lr_drop_steps", "steps")
        config_checks.check_selection(config)
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

    def check_lengths(self, steps_per_epoch):
        """Refuses a warm-up or drops that a phase is too short for.

        Args:
            steps_per_epoch: Steps of an epoch.

        Raises:
            InputError: For a warm-up or a drop that does not end before the phase.
        """
        config_checks.check_lengths(self, steps_per_epoch)

    def to_dict(self):
        """The configuration without what is `None` (TOML has no null)."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    def differences(self, other):
        """The names of the settings in which `other` (a dictionary) differs.

        A setting that `other` does not have yet, being older, has its default there. Settings on
        which the result does not depend are left out; where data are kept is one of them, since
        runs compare the data themselves by their fingerprint.
        """
        mine = self.to_dict()
        defaults = TrainConfig().to_dict()
        names = (mine.keys() | other.keys()) - {"checkpoint_every", "data_dir"}
        return sorted(k for k in names if mine.get(k) != other.get(k, defaults.get(k)))
