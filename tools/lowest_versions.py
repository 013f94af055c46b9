"""Runs the default tests with the lowest versions that pyproject.toml allows.

    python tools/lowest_versions.py FOLDER [--only-install] [-- PYTEST ARGUMENTS]

FOLDER gets a virtual environment in which everything that the package itself imports, in
`dependencies` and in the optional groups of GROUPS, has the version after its `>=`; what these
packages need in turn, and the tools of the tests, have whatever version pip chooses. Then come
the versions, and pytest. The exit code is pytest's.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUPS = ("plots", "litert", "onnx")
_LOWEST = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*>=\s*(?P<version>[0-9.]+)")


def constraints(project):
    """`name==version` of everything that the package may import, in its lowest version.

    Args:
        project: The table `project` of pyproject.toml.

    Raises:
        ValueError: If a requirement has no lowest version.
    """
    groups = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for group in GROUPS for one in groups[group])]
    found = []
    for requirement in wanted:
        if (match := _LOWEST.match(requirement)) is None:
            raise ValueError(f"{requirement!r} has no lowest version (>=)")
        found.append(f"{match['name']}=={match['version']}")
    return found


def install(folder, pinned):
    """A virtual environment with the pinned versions, the package and its tests' tools.

    Args:
        folder: Where to; it may exist.
        pinned: What `constraints` gives.

    Returns:
        The environment's Python.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = folder / "venv"
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    listed = folder / "lowest.txt"
    listed.write_text("".join(f"{pin}\n" for pin in pinned), encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(listed), "--editable", f"{ROOT}[test]"], check=True)
    return python


def main():
    """Installs, prints the versions, and runs the tests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="for the environment")
    parser.add_argument("--only-install", action="store_true", help="run no tests")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    arguments = parser.parse_args()
    content = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pinned = constraints(tomllib.loads(content)["project"])
    python = install(arguments.folder, pinned)
    print("\n".join(pinned), flush=True)
    if arguments.only_install:
        return 0
    tests = [str(python), "-m", "pytest", "-m", "not slow", *arguments.pytest]
    return subprocess.run(tests, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
