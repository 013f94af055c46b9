"""The table of bad inputs: what is tried, and the page that is made of it.

    python tests/bad_input/table.py            writes docs/bad_input.md from cases.toml
    python tests/bad_input/table.py --record   writes the messages into cases.toml first

Read what `--record` changes: the messages are what users get to see.
"""

import contextlib
import os
import pathlib
import re
import sys
import tempfile
import tomllib

import tomli_w

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "bad_input.md"

SURFACES = {
    "Command line": "Run as they stand. `finished` is the directory of a finished run on digits.",
    "Configuration file": "Each file is given to `soar-tf train --config`.",
    "Data set": "Python that makes a data set `set.npz` or `images/`, which is then given to "
    "`soar-tf train --dataset`.",
    "Model": "Python that makes a model `model.keras`, `saved` or `run`, which is then given to "
    "`soar-tf evaluate ... --dataset digits`.",
    "Python": "Python code that raises `soar_tf.errors.InputError`, a `ValueError`.",
}
HEADER = """# Bad input

A mistake is answered by one sentence: what argument, what came, what is allowed. The command line
ends with exit code 2 and writes nothing. This page is made from the table of tests
(`tests/bad_input/cases.toml`) by `python tests/bad_input/table.py`; each case is run by the tests.
Lists of all allowed names are cut short here (`...`).
"""


def cases():
    """The cases: dictionaries of `surface`, `input` and `message`."""
    with open(HERE / "cases.toml", "rb") as file:
        return tomllib.load(file)["case"]


def page(rows):
    """The documentation page."""
    lines = [HEADER]
    for surface, sentence in SURFACES.items():
        lines += [f"## {surface}", "", sentence, ""]
        for row in rows:
            if row["surface"] == surface:
                language = {"Command line": "console", "Configuration file": "toml"}
                text = row["input"].strip()
                if surface == "Command line":
                    text = f"$ soar-tf {text}"
                lines += [f"```{language.get(surface, 'py')}", text, "```", ""]
                lines += [f"> {row['message']}", ""]
    return "\n".join(lines).rstrip() + "\n"


def message(case, finished):
    """Runs a case in a new folder; returns its message, and checks that nothing was written.

    Args:
        case: A row of the table.
        finished: `pathlib.Path` of a finished run.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.symlink(finished, "finished")
        if case["surface"] == "Python":
            return _python(case["input"])
        command = _prepare(case)
        before = sorted(pathlib.Path().rglob("*"))
        text = _cli(command)
        assert sorted(pathlib.Path().rglob("*")) == before, "something was written"
        return text


def _prepare(case):
    """Writes a case's files; returns the command line."""
    text, train = case["input"], ["--workdir", "out", "--verbose", "0"]
    if case["surface"] == "Command line":
        return text.split()
    if case["surface"] == "Configuration file":
        pathlib.Path("run.toml").write_text(text)
        return ["train", "--config", "run.toml", *train]
    _run(text)
    if case["surface"] == "Data set":
        name = "npz:set.npz" if pathlib.Path("set.npz").exists() else "folder:images"
        return ["train", "--dataset", name, "--network", "mlp", *train]
    name = next(n for n in ("model.keras", "saved", "run") if pathlib.Path(n).exists())
    return ["evaluate", name, "--dataset", "digits"]


def _run(code):
    import keras
    import numpy as np
    import tensorflow as tf

    import soar_tf

    names = {"keras": keras, "np": np, "tf": tf, "soar_tf": soar_tf, "pathlib": pathlib}
    exec(compile(code, "case", "exec"), names)


def _python(code):
    from soar_tf.errors import InputError

    try:
        _run(code)
    except InputError as error:
        return _elided(str(error))
    raise AssertionError("nothing was refused")


def _cli(arguments):
    from click.testing import CliRunner

    from soar_tf.cli.main import main

    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr)
    assert result.stdout == "", result.stdout
    return _elided(result.stderr.strip().splitlines()[-1].removeprefix("Error: "))


def _elided(text):
    """A message without the list of all names, which grows with every method."""
    return re.sub(r"(?<=Allowed: ).*", "...", text) if text.startswith("Unknown") else text


def _record():
    """Runs every case and writes its message into the table."""
    from soar_tf.cli.main import main
    from soar_tf.cli.startup import load_tensorflow

    load_tensorflow()
    rows, recorded = cases(), []
    with tempfile.TemporaryDirectory() as folder:
        # The run of tests/conftest.py.
        arguments = "train --dataset digits --network mlp --network-arg width=0.25 --limit 128 "
        arguments += "--batch-size 32 --verbose 0 --evaluate 40 --pretrain-epochs 2 --epochs 1 "
        arguments += f"--workdir {folder}/run"
        main(arguments.split(), standalone_mode=False)
        for row in rows:
            try:
                text = message(row, pathlib.Path(folder, "run"))
            except BaseException as error:
                print(f"NOT REFUSED: {row['input']!r}: {type(error).__name__}: {error}")
                text = row.get("message", "")
            recorded.append({**row, "message": text})
    content = tomli_w.dumps({"case": recorded}, multiline_strings=True)
    (HERE / "cases.toml").write_text(content)


if __name__ == "__main__":
    if "--record" in sys.argv:
        _record()
    PAGE.write_text(page(cases()))
