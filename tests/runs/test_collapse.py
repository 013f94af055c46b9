"""Training that collapses: how the defaults prevent it, and who says that it happened."""

import math

import pytest

from soar_tf import methods
from soar_tf.errors import InputError
from soar_tf.runs.callbacks import CollapseNotice
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.experiment import Experiment


def test_epsilon_grows_during_the_first_quarter_of_the_epochs():
    config = TrainConfig(method="adversarial", dataset="cifar10", epochs=10)
    ramp = methods.get("adversarial", epsilon=config.default_epsilon(warms_up=True))
    # 10 epochs of 4 steps: 10 steps of growth.
    found = [255 * float(ramp.at(step, steps_per_epoch=4).epsilon) for step in (0, 5, 10, 40)]
    assert found == pytest.approx([0, 4, 8, 8], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "warms_up"),
    [
        ({"dataset": "cifar10"}, False),
        ({"dataset": "cifar10", "lr_schedule": "paper"}, True),
        ({"dataset": "digits"}, True),
    ],
)
def test_epsilon_is_constant_otherwise(settings, warms_up):
    epsilon = {"cifar10": 8 / 255, "digits": 0.15}[settings["dataset"]]
    assert TrainConfig(**settings).default_epsilon(warms_up=warms_up) == epsilon


@pytest.mark.parametrize(
    ("name", "rate"),
    [("jacobian", 0.01), ("gradient-norm", 0.01), ("soar", 0.01), ("trades", 0.05)],
)
def test_second_derivatives_get_the_smaller_learning_rate(name, rate):
    experiment = Experiment(TrainConfig(method=name, dataset="digits"))
    assert experiment.config.learning_rate == rate


@pytest.mark.parametrize("epochs", [0, -1, "many"])
def test_bad_epochs_are_named(epochs):
    with pytest.raises(InputError, match="`epochs` must be "):
        TrainConfig(dataset="cifar10", epochs=epochs).default_epsilon(warms_up=True)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([2.30, math.log(10), math.log(10) + 1e-4, 2.3026], 1),
        ([math.log(10), 2.1, math.log(10), 1.9], 0),
        ([2.35, 2.28, 2.2], 0),
        ([1.85, 2.21, 2.312, 2.311, 2.309], 1),  # a run of `sum`; at most 10 % were right
        ([math.log(10), 2.1, math.log(10), math.log(10)], 1),
    ],
)
def test_two_epochs_of_a_constant_answer_are_told_once(losses, said, capsys):
    notice = CollapseNotice("adversarial", 10)
    for epoch, loss in enumerate(losses):
        notice.on_epoch_end(epoch, {"val_loss": loss})
    assert capsys.readouterr().err.count("same answer") == said
