"""Options come from the settings of a configuration, with their defaults."""

import dataclasses

import click
import pytest
from click.testing import CliRunner

from soar_tf.cli import settings as options
from soar_tf.cli.main import main
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.evaluation_config import EvaluationConfig, TransferConfig
from soar_tf.runs.settings import setting, settings


@dataclasses.dataclass
class Example:
    count: int = setting(3, "How many.", type="positive")
    rate: float = setting(2e-4, "How fast.", type="number", late=True)
    name: str | None = setting(None, "Which.", unset="the first")
    colours: int | None = setting(None, "Channels.", type=(1, 3))
    points: tuple = setting((), "Where. Repeatable.", type="number", option="point", multiple=True)
    loud: bool = setting(False, "Say it.", type="flag")
    best: bool = setting(False, "Keep.", type="switch", option="best/--last", unset="the last")


def _run(arguments, **how):
    seen = {}

    @click.command()
    @options.options(Example, **how)
    def command(**values):
        seen.update(values)

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return seen, " ".join(result.output.split())


def test_the_help_says_the_defaults_of_the_dataclass():
    _, text = _run(["--help"])
    assert "--count INTEGER RANGE How many. [default: 3; x>=1]" in text
    assert "--rate NUMBER How fast. [default: 2e-4]" in text
    assert "--name TEXT Which. [default: the first]" in text
    assert "--best / --last Keep. [default: the last]" in text
    _, text = _run(["--help"], overlay=True)
    assert "How many. [default: 3] [x>=1]" in text


def test_only_what_is_given_is_given():
    values, _ = _run([])
    assert options.given(Example, values | {"other": 1}) == {"count": 3, "loud": False}
    values, _ = _run([], overlay=True)
    assert options.given(Example, dict(values)) == {"loud": False}
    values, _ = _run(["--point", "1/4", "--point", "2", "--colours", "3", "--last", "--loud"])
    found = options.given(Example, values)
    assert found == {
        "count": 3,
        "colours": 3,
        "points": (0.25, 2.0),
        "loud": True,
        "best": False,
    }
    assert Example(**found).rate == 2e-4


def test_a_wrong_name_is_a_mistake_in_the_code():
    with pytest.raises(TypeError, match="Example has no setting 'cuont'"):
        options.options(Example, ["cuont"])


@pytest.mark.parametrize(
    ("command", "config"),
    [("train", TrainConfig), ("evaluate", EvaluationConfig), ("transfer", TransferConfig)],
)
def test_every_setting_has_an_option_and_every_field_is_a_setting(command, config):
    taken = {parameter.name for parameter in main.commands[command].params}
    assert set(settings(config)) <= taken
    assert set(settings(config)) == {field.name for field in dataclasses.fields(config)}
