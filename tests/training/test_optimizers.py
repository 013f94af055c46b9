"""Coupled weight decay: steps derived by hand, in every way that a step can be taken."""

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.errors import InputError
from soar_tf.runs import optimizers
from soar_tf.training import CoupledAdam, CoupledSGD

RATE, MOMENTUM, DECAY, START = 0.1, 0.9, 0.5, 2.0
X, Y = np.array([0.25, 0.5, 0.75, 1.0]), np.array([1.0, -1.0, 0.5, 2.0])


def slope(w):
    """The gradient of mean((w x - y)^2)."""
    return np.mean(2 * (w * X - Y) * X)


def coupled_sgd(steps):
    w, velocity = START, 0.0
    for _ in range(steps):
        velocity = MOMENTUM * velocity - RATE * (slope(w) + DECAY * w)
        w += velocity
    return w


def decoupled_sgd(steps):
    w, velocity = START, 0.0
    for _ in range(steps):
        gradient = slope(w)
        w -= RATE * DECAY * w
        velocity = MOMENTUM * velocity - RATE * gradient
        w += velocity
    return w


def coupled_adam(steps, beta1=0.9, beta2=0.999, tiny=1e-7):
    w, m, v = START, 0.0, 0.0
    for k in range(1, steps + 1):
        gradient = slope(w) + DECAY * w
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        w -= RATE * np.sqrt(1 - beta2**k) / (1 - beta1**k) * m / (np.sqrt(v) + tiny)
    return w


def trained(optimizer, steps=2, micro_batch=None, **compile_arguments):
    """The one weight of a linear model after some steps on the batch."""
    network = keras.Sequential(
        [keras.Input((1, 1, 1)), keras.layers.Flatten(), keras.layers.Dense(1, use_bias=False)]
    )
    network.set_weights([np.array([[START]])])
    model = soar_tf.RobustModel(network, "standard", micro_batch=micro_batch)
    model.compile(optimizer, loss="mean_squared_error", **compile_arguments)
    for _ in range(steps):
        model.train_on_batch(X.reshape(-1, 1, 1, 1).astype("float32"), Y[:, None].astype("float32"))
    return float(network.get_weights()[0][0, 0])


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("sgd", "coupled", coupled_sgd),
        ("sgd", "decoupled", decoupled_sgd),
        ("adam", "coupled", coupled_adam),
    ],
)
def test_two_steps_by_hand(name, kind, expected):
    assert trained(optimizers.optimizer(name, RATE, DECAY, kind)) == pytest.approx(expected(2))


def test_at_rest_momentum_makes_the_coupled_decay_ten_times_stronger():
    """Without a gradient, one step's velocity at its limit: 1/(1 - 0.9) times the decoupled one."""
    w, velocity = 1.0, 0.0
    tiny = 1e-6
    for _ in range(300):
        velocity = MOMENTUM * velocity - tiny * DECAY * w
    assert velocity == pytest.approx(10 * -tiny * DECAY * w)


def test_the_decay_is_neither_split_nor_scaled_nor_clipped():
    wanted = coupled_sgd(2)
    sgd = {"learning_rate": RATE, "momentum": MOMENTUM, "coupled_weight_decay": DECAY}
    assert trained(CoupledSGD(**sgd), micro_batch=3) == pytest.approx(wanted)
    scaled = keras.optimizers.LossScaleOptimizer(CoupledSGD(**sgd), initial_scale=64.0)
    assert trained(scaled) == pytest.approx(wanted)
    # A gradient clipped to nothing leaves the decay alone: w (1 - rate * decay) after one step.
    clipped = CoupledSGD(**sgd, clipvalue=1e-12)
    assert trained(clipped, steps=1) == pytest.approx(START * (1 - RATE * DECAY))


def test_the_optimizer_is_saved_with_its_decay():
    for optimizer in (CoupledSGD(0.1, coupled_weight_decay=0.25), CoupledAdam(0.1)):
        config = keras.optimizers.serialize(optimizer)
        again = keras.optimizers.deserialize(config)
        assert type(again) is type(optimizer)
        assert again.coupled_weight_decay == optimizer.coupled_weight_decay


def test_a_negative_decay_is_refused():
    with pytest.raises(InputError, match="`coupled_weight_decay` must be >= 0. Received: -1"):
        CoupledSGD(0.1, coupled_weight_decay=-1)
