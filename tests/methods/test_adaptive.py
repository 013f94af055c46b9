"""ELLE-A: its weight by hand, in float64, and its state through checkpoints and splits."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_oracle import BATCH, CLASSES, SIDE, W, b, softmax, x, y

import soar_tf
from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.methods.adaptive import JumpRule
from soar_tf.ops import random

LARGEST, DECAY, DEVIATIONS, EPSILON, RATE, SEED = 100.0, 0.5, 0.0, 0.3, 0.05, 2


def weights_by_hand(errors, largest, decay, deviations):
    """The weight of each step, and the one after the last, from the list of all errors."""
    weights = [0.0]
    for step, error in enumerate(errors):
        before = np.array(errors[:step], "float64")
        jumped = step >= 3 and error > before.mean() + deviations * before.std()
        weights.append(largest if jumped else decay * weights[-1])
    return weights


@pytest.mark.parametrize("deviations", [0.0, 1.0, 2.0])
def test_rule_against_the_list_of_all_errors(deviations):
    errors = np.random.default_rng(1).lognormal(-9.0, 1.5, 300).tolist()
    expected = weights_by_hand(errors, 4000.0, 0.9, deviations)
    rule = JumpRule(4000.0, 0.9, deviations)
    state = rule.initial()
    for error, weight in zip(errors, expected[1:], strict=True):
        state = rule.after(state, error)
        np.testing.assert_allclose(state[0], weight, rtol=1e-4)
    # Jumps there were, and steps without.
    assert 0 < expected.count(4000.0) < 200
    np.testing.assert_allclose(state[2], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(state[3] / state[1]), np.std(errors), rtol=1e-4)


def test_equal_errors_are_no_jump_and_the_first_three_steps_never_are():
    rule, state = JumpRule(1.0, 0.5, 2.0), JumpRule.initial()
    for error in (0.0, 1.0, 9.0, 9.0):
        state = rule.after(state, error)
        # 9 is below mean + 2 deviations of (0, 1, 9), which is 10.0 + 1.4.
        assert state[0] == 0.0
    assert rule.after(state, 99.0)[0] == 1.0


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_an_error_that_is_not_finite_changes_nothing(error):
    state = tf.constant([2.0, 5.0, 0.1, 0.2])
    np.testing.assert_array_equal(JumpRule(9.0, 0.5, 2.0).after(state, error), state)


class ByHand:
    """Steps of SGD on a softmax-linear network in float64, derivatives by formula."""

    def __init__(self):
        self.kernel, self.bias, self.step, self.errors = W.T.copy(), b.copy(), 0, []

    def losses(self, points):
        z = points @ self.kernel + self.bias
        top = z.max(axis=1)
        return top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - z[np.arange(BATCH), y]

    def residuals(self, points):
        return softmax(points @ self.kernel + self.bias) - np.eye(CLASSES)[y]

    def take(self, weight):
        keys = random.example_keys(SEED, tf.range(BATCH), step=self.step, purpose="training")
        ends = [
            np.clip(x + random.uniform(random.derive(keys, name), (SIDE,), -EPSILON, EPSILON), 0, 1)
            for name in ("segment_a", "segment_b")
        ]
        share = random.uniform(random.derive(keys, "segment_share"), ()).numpy().astype("float64")
        between = (1 - share)[:, None] * ends[0] + share[:, None] * ends[1]
        gap = self.losses(between)
        gap -= (1 - share) * self.losses(ends[0]) + share * self.losses(ends[1])
        adversarial = x + EPSILON * np.sign(self.residuals(x) @ self.kernel.T)
        adversarial = np.clip(adversarial, 0, 1)
        # Of the mean of loss + weight * gap^2.
        parts = [(adversarial, np.ones(BATCH)), (between, 2 * weight * gap)]
        parts += [(ends[0], -2 * weight * gap * (1 - share)), (ends[1], -2 * weight * gap * share)]
        for_kernel, for_bias = 0.0, 0.0
        for points, factors in parts:
            slopes = factors[:, None] * self.residuals(points) / BATCH
            for_kernel += points.T @ slopes
            for_bias += slopes.sum(axis=0)
        self.errors.append((gap**2).mean())
        self.kernel, self.bias = self.kernel - RATE * for_kernel, self.bias - RATE * for_bias
        self.step += 1


def elle(**arguments):
    settings = {"lambda_": LARGEST, "decay": DECAY, "deviations": DEVIATIONS, **arguments}
    return methods.ELLE(EPSILON, adaptive=True, **settings)


def model(method=None, **arguments):
    net = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(CLASSES)])
    net.set_weights([W.T, b])
    made = soar_tf.RobustModel(net, elle() if method is None else method, seed=SEED, **arguments)
    made.compile(keras.optimizers.SGD(RATE), jit_compile=False)
    return made


def train(trained, steps):
    images = x.astype("float32")
    logs = [trained.train_on_batch(images, y, return_dict=True) for _ in range(steps)]
    return [float(log["lambda_"]) for log in logs]


def test_steps_by_hand():
    reference, trained, used = ByHand(), model(), []
    for _ in range(10):
        weight = weights_by_hand(reference.errors, LARGEST, DECAY, DEVIATIONS)[-1]
        used.append(weight)
        reference.take(weight)
    assert used.count(LARGEST) >= 2 and used[:4] == [0.0] * 4
    np.testing.assert_allclose(train(trained, 10), used, rtol=1e-6)
    kernel, bias = trained.network.get_weights()
    np.testing.assert_allclose(kernel - W.T, reference.kernel - W.T, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(bias - b, reference.bias - b, rtol=1e-3, atol=1e-5)


def weights(trained):
    return np.concatenate([np.ravel(weight) for weight in trained.network.get_weights()])


def test_a_checkpoint_holds_the_state(tmp_path):
    whole = model()
    expected = train(whole, 9)
    first = model()
    train(first, 6)
    first.save_weights(tmp_path / "state.weights.h5")
    second = model()
    train(second, 1)
    second.load_weights(tmp_path / "state.weights.h5")
    assert train(second, 3) == expected[6:] and any(expected[6:])
    np.testing.assert_array_equal(weights(second), weights(whole))


def test_a_file_without_the_state_loads_and_begins_anew(tmp_path):
    plain = model(methods.ELLE(EPSILON))
    plain.save_weights(tmp_path / "plain.weights.h5")
    adaptive = model()
    adaptive.load_weights(tmp_path / "plain.weights.h5")
    assert train(adaptive, 1) == [0.0]
    adaptive.save_weights(tmp_path / "adaptive.weights.h5")
    plain.load_weights(tmp_path / "adaptive.weights.h5")


def test_micro_batches_see_the_error_of_the_whole_batch():
    whole, parts = model(), model(micro_batch=3)
    np.testing.assert_allclose(train(parts, 8), train(whole, 8))
    np.testing.assert_allclose(weights(parts), weights(whole), rtol=1e-5)


def test_a_saved_model_keeps_the_rule(tmp_path):
    model().save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.method.get_config() == elle().get_config()


def test_the_largest_weight_may_follow_a_schedule():
    # Jumps come where they came before, to what the schedule gives in their step.
    trained = model(elle(lambda_="stairs(100, 200, steps=7)", deviations=0.0))
    used = train(trained, 30)
    assert max(used[:8]) == LARGEST and max(used) == 2 * LARGEST


def test_a_sum_cannot_hold_it():
    with pytest.raises(
        InputError, match="`methods` must not contain a method with an adaptive weight"
    ):
        methods.Sum([elle(), "jacobian"])


@pytest.mark.parametrize(
    ("argument", "value"), [("decay", 1.5), ("decay", -0.1), ("deviations", -1), ("adaptive", "on")]
)
def test_bad_arguments(argument, value):
    with pytest.raises(InputError, match=f"`{argument}` must be"):
        methods.ELLE(**{argument: value})
