"""Optimizers and learning-rate schedules by name, from Keras's own parts."""

import keras

from soar_tf.training import CoupledAdam, CoupledSGD

MOMENTUM = 0.9


def learning_rate(schedule, peak, total_steps, drops):
    """A learning-rate schedule.

    Args:
        schedule: `"onecycle"` (linear warm-up over 30 % of the steps, then cosine to zero),
            `"paper"` (divided by 10 at each of `drops`) or `"constant"`.
        peak: Largest learning rate.
        total_steps: Steps of the phase.
        drops: Where the paper's schedule drops, as fractions of the phase.

    Returns:
        A float or a `keras.optimizers.schedules.LearningRateSchedule`.
    """
    if schedule == "constant":
        return peak
    if schedule == "paper":
        boundaries = [max(1, round(fraction * total_steps)) for fraction in drops]
        values = [peak * 0.1**k for k in range(len(drops) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
    warmup = max(1, round(0.3 * total_steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 25,
        decay_steps=max(1, total_steps - warmup),
        warmup_target=peak,
        warmup_steps=warmup,
    )


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
