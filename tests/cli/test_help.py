"""The help of every command, whoever added it: each option with its unit and default."""

import re
import subprocess
import sys

import click
import pytest

from soar_tf.cli import params
from soar_tf.cli.main import main

COMMANDS = sorted(main.commands.items())
OPTIONS = [
    pytest.param(command, option, id=f"{name} {option.opts[0]}")
    for name, command in COMMANDS
    for option in command.params
    if isinstance(option, click.Option)
]
# What a number counts or measures.
UNITS = re.compile(
    r"epochs?\b|images?\b|pixels?\b|steps?\b|seeds?\b|rates?\b|decay|seconds?\b|minutes?\b|hours?\b|"
    r"points?\b|replicas?\b|workers?\b|runs?\b|networks?\b|restarts?\b|directions?\b|epsilon|radius|"
    r"factor|share|weight|momentum|0:",
    re.I,
)


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_an_option_says_its_default_and_its_unit(command, option):
    assert option.help, "no help"
    optional = not (option.required or option.is_flag or option.multiple)
    if optional:
        context = click.Context(command)
        text = option.get_help_record(context)[1]
        assert "default: " in text, text
    if isinstance(
        option.type, (click.types.IntParamType, click.types.FloatParamType, params.Number)
    ):
        assert UNITS.search(option.help), option.help


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_a_command_says_what_it_does_and_gives_an_example(name, command):
    assert command.get_short_help_str()
    assert f"soar-tf {name}" in command.help


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom soar_tf.cli.main import main\n"
        "for words in [[], *([name] for name in main.commands)]:\n"
        "    try:\n        main([*words, '--help'], prog_name='soar-tf')\n"
        "    except SystemExit as stop:\n        assert stop.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib', 'tensorflow_datasets', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout + result.stderr


@pytest.mark.parametrize("width", [40, 60, 200])
def test_tables_fit_the_terminal(width):
    rows = [["pgd:steps=50,epsilon=4/255,restarts=10", "63.1 %"], ["clean", "100.0 %"]]
    lines = params.table(rows, ["attack", "accuracy"], width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[2].endswith("  63.1 %") and lines[-1].endswith(" 100.0 %")
    joined = "".join(line.split("  ")[0].strip() for line in lines[2:-1])
    assert joined == rows[0][0]


def test_figures_are_never_cut():
    table = params.table([["a" * 30, "1", "22"]], ["name", "first", "second"], 5)
    assert table.splitlines() == [
        "name          first  second",
        "------------  -----  ------",
        "aaaaaaaaaaaa      1      22",
        "aaaaaaaaaaaa",
        "aaaaaa",
    ]


def test_export_in_json(run_cli, tiny_run, tmp_path):
    result = run_cli("export", tiny_run, tmp_path / "out", "--json")
    assert result.json["path"] == str(tmp_path / "out")
    assert (result.json["format"], result.json["same_top_class"]) == ("saved_model", 1.0)
