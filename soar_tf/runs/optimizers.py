"""Optimizers and learning-rate schedules by name, from Keras's own parts."""

import keras

from soar_tf.training import CoupledAdam, CoupledSGD

MOMENTUM = 0.9


def learning_rate(schedule, peak, total_steps, drops, *, drop_steps=None, warmup=None):
    """A learning-rate schedule.

    Args:
        schedule: `"onecycle"` (linear warm-up from a 25th of the peak, over 30 % of the steps
            unless told otherwise, then cosine to zero), `"cosine"` (cosine to zero), `"paper"`
            (divided by 10 at each of `drops`) or `"constant"`.
        peak: Largest learning rate.
        total_steps: Steps of the phase.
        drops: Where the paper's schedule drops, as fractions of the phase.
        drop_steps: Where it drops instead, each a number of steps that still have the rate before.
        warmup: Steps of the warm-up, fewer than `total_steps`. Schedules but `"onecycle"` have none
            unless it is given; then they are multiplied by k / `warmup` in its k-th step, and the
            cosine begins after it.

    Returns:
        A float or a `keras.optimizers.schedules.LearningRateSchedule`.
    """
    schedules = keras.optimizers.schedules
    if schedule == "onecycle":
        warmup = max(1, round(0.3 * total_steps)) if warmup is None else warmup
        return schedules.CosineDecay(
            initial_learning_rate=peak / 25,
            decay_steps=max(1, total_steps - warmup),
            warmup_target=peak,
            warmup_steps=warmup,
        )
    rate = peak
    if schedule == "cosine":
        rate = schedules.CosineDecay(peak, max(1, total_steps - (warmup or 0)))
        return rate if warmup is None else WarmUp(rate, warmup, after=warmup)
    if schedule == "paper":
        boundaries = [max(1, round(fraction * total_steps)) for fraction in drops]
        if drop_steps is not None:
            boundaries = [step - 1 for step in drop_steps]  # Keras's pieces include their boundary
        values = [peak * 0.1**k for k in range(len(boundaries) + 1)]
        rate = schedules.PiecewiseConstantDecay(boundaries, values)
    return rate if warmup is None else WarmUp(rate, warmup)


@keras.saving.register_keras_serializable(package="soar_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up before or over another schedule.

    Args:
        rate: A learning rate or a `keras.optimizers.schedules.LearningRateSchedule`.
        steps: Steps of the warm-up: the k-th has k / `steps` of the rate.
        after: Step in which `rate` begins, which has its first value before.

    Example:

    >>> from soar_tf.runs import optimizers
    >>> [round(float(optimizers.WarmUp(0.1, 4)(step)), 3) for step in range(6)]
    [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]
    """

    def __init__(self, rate, steps, after=0):
        super().__init__()
        self.rate, self.steps, self.after = rate, steps, after

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rate = self.rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = rate(keras.ops.maximum(step - self.after, 0.0))
        return rate * keras.ops.minimum((step + 1.0) / self.steps, 1.0)

    def get_config(self):
        rate = self.rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = keras.optimizers.schedules.serialize(rate)
        return {"rate": rate, "steps": self.steps, "after": self.after}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config["rate"], dict):
            config["rate"] = keras.optimizers.schedules.deserialize(config["rate"])
        return cls(**config)


def optimizer(name, rate, weight_decay, weight_decay_type="decoupled", ema=None):
    """An optimizer by name: `"sgd"` with momentum 0.9, `"adam"` or `"adamw"`.

    Args:
        name: The name.
        rate: Learning rate or schedule.
        weight_decay: Weight decay.
        weight_decay_type: `"decoupled"` (Keras's) or `"coupled"` (added to the gradient).
        ema: Momentum of the weights' moving average, or `None` for none.
    """
    coupled = weight_decay_type == "coupled"
    common = {"coupled_weight_decay" if coupled else "weight_decay": weight_decay}
    if ema is not None:
        common |= {"use_ema": True, "ema_momentum": ema}
    if name == "sgd":
        cls = CoupledSGD if coupled else keras.optimizers.SGD
        return cls(rate, momentum=MOMENTUM, **common)
    plain = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[name]
    return (CoupledAdam if coupled else plain)(rate, **common)
