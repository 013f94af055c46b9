"""Shell completion: the registered names, without TensorFlow."""

import os
import subprocess
import sys

import pytest

from soar_tf import registry
from soar_tf.cli.completion import Registered

TABLES = {
    table.group: table for table in vars(registry).values() if isinstance(table, registry.Registry)
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_name_is_offered_with_a_pattern_cut_at_its_colon(kind):
    table = TABLES[kind]
    offered = [item.value for item in Registered(table).shell_complete(None, None, "")]
    expected = [*table, *table.examples]
    assert offered == [name[: name.find(":") + 1] or name for name in expected]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ex", ["export"]),
        ("train --method tr", ["trades"]),
        ("train --network cn", ["cnn2", "cnn4"]),
        ("train --dataset tf", ["tfds:"]),
        ("evaluate runs/x --attack apgd-t", ["apgd-t"]),
        ("evaluate runs/x --masking-s", ["--masking-source"]),
    ],
)
def test_what_a_tab_offers(typed, offered):
    assert _completed(typed) == offered


def test_completing_loads_no_tensorflow():
    code = (
        "import sys\nfrom soar_tf.cli.main import main\n"
        "try:\n    main(prog_name='soar-tf')\nexcept SystemExit:\n    pass\n"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    assert _shell(code, "train --method tr").splitlines()[-1] == "False False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_calls_the_command(run_cli, shell):
    script = run_cli("completion", shell).stdout
    assert f"_SOAR_TF_COMPLETE={shell}_complete" in script


def _completed(typed):
    code = "from soar_tf.cli.main import main\nmain(prog_name='soar-tf')"
    return [line.partition(",")[2] for line in _shell(code, typed).splitlines()]


def _shell(code, typed):
    words = f"soar-tf {typed}"
    environment = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_SOAR_TF_COMPLETE": "bash_complete",
    }
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    ).stdout
