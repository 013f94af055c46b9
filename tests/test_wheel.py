"""The wheel: nothing is missing in it, and in an empty environment it does what the README says.

The slow tests install it with the lowest versions that `pyproject.toml` allows and with the newest
ones, which pip has to be able to get.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Of `make train`, but in a minute: the options stand last, so they win.
SMALL = "--limit 64 --pretrain-epochs 1 --epochs 1 --evaluate 8 --verbose 0"


def folders():
    """The folders with Python files, as packages."""
    found = {path.parent.relative_to(ROOT) for path in (ROOT / "soar_tf").rglob("*.py")}
    return {".".join(folder.parts) for folder in found} | {"soar_tf.cli"}


def lowest():
    """pip's constraints for the lowest versions, such as `keras==3.14.*`."""
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", text) for text in PROJECT["project"]["dependencies"]]
    return "\n".join(f"{bound[1]}=={bound[2]}.*" for bound in bounds)


def train_command():
    """`make train`'s command without the program, with the Makefile's variables put in."""
    text = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^(\w+) [?:]?= (.*)$", text, re.M))
    recipe = re.search(r"^train:.*\n((?:\t.*\n)+)", text, re.M)[1].replace("\\\n", " ")
    words = re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], recipe)
    return shlex.split(words.partition("soar-tf ")[2])


def test_the_wheel_is_told_of_every_package():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders()


def test_the_makefiles_command_and_the_lowest_versions_are_read_as_they_stand():
    words = train_command()
    assert words[:3] == ["train", "--method", "soar"] and "runs/digits" in words
    assert "keras==3.14.*" in lowest()
    assert len(lowest().splitlines()) == len(PROJECT["project"]["dependencies"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"  # the build writes into its source
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    for name in filter(None, names):
        if name.startswith(("soar_tf/", "cli/")) or "/" not in name:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, copy)
    (found,) = folder.glob("*.whl")
    return found


def run(*command, **options):
    """Runs it without this process's paths; its output if it ends well."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    given = {"capture_output": True, "text": True, "env": environment, **options}
    result = subprocess.run([str(word) for word in command], **given)
    assert result.returncode == 0, (command, result.stdout[-3000:], result.stderr[-3000:])
    return result.stdout


@pytest.mark.slow
def test_everything_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "soar_tf").rglob("*")
        if path.suffix in (".py", ".npz", ".j2", ".typed") or path.name == "digits.LICENSE.txt"
    }
    expected |= {f"soar_tf/cli/{path.name}" for path in (ROOT / "cli").glob("*.py")}
    assert expected <= inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert not [name for name in inside if name.startswith(("tests/", "docs/", "benchmarks/"))]


@pytest.mark.slow
@pytest.mark.parametrize("versions", ["lowest", "newest"])
def test_it_works_in_an_empty_environment(wheel, tmp_path, versions):
    run(sys.executable, "-m", "venv", tmp_path / "env")
    programs = tmp_path / "env" / "bin"
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(lowest() if versions == "lowest" else "")
    run(programs / "pip", "install", "--constraint", constraints, wheel)
    place = run(programs / "python", "-c", "import soar_tf; print(soar_tf.__file__)", cwd=tmp_path)
    assert place.startswith(str(tmp_path / "env"))
    run(programs / "soar-tf", "doctor", cwd=tmp_path)
    words = [*train_command(), *shlex.split(SMALL)]
    table = run(programs / "soar-tf", *words, cwd=tmp_path)
    assert re.search(r"^soar +\d+\.\d %", table, re.M) and "autoattack" in table
    assert (tmp_path / "runs" / "digits" / "saved_model").is_dir()
