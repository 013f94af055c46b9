"""The rooms import one way, one place holds each mechanism, and files stay small."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "soar_tf"

# The modules beside the packages are for everyone; then each package may use those before it.
LEAVES = ("_lazy", "errors", "files", "formatting", "registry", "threat_model", "validation")
ORDER = (
    *("ops", "theory", "models", "second_order", "datasets", "corruptions", "attacks", "methods"),
    *("training", "evaluation", "callbacks", "plots", "runs", "reports", "paper"),
    *("doctor", "cli"),
)


def _files(folder):
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


SOURCES = [*_files(PACKAGE), *_files(ROOT / "cli")]


def _room(path):
    if path.is_relative_to(ROOT / "cli"):
        return "cli"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(path):
    """The rooms that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "soar_tf" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_before_it(path):
    room = _room(path)
    if room == "__init__":
        return
    allowed = set(LEAVES) if room in LEAVES else {*LEAVES, *ORDER[: ORDER.index(room) + 1]}
    assert set(_imported_rooms(path)) <= allowed


def test_every_room_is_in_the_order():
    assert {_room(path) for path in SOURCES} == {"__init__", *LEAVES, *ORDER}


@pytest.mark.parametrize(
    ("needle", "places"),
    [
        ("GradientTape", {"soar_tf/ops/gradients.py", "soar_tf/training/step.py"}),
        ("tf.distribute", {"soar_tf/training/replicas.py", "soar_tf/training/strategies.py"}),
        ("def train_step", {"soar_tf/training/robust_model.py"}),
        ("load_model", {"soar_tf/models/untrusted/keras_files.py"}),
        ("saved_model.load", {"soar_tf/models/loading.py"}),
        ("np.load", {"soar_tf/datasets/digits.py"}),
        ("unsafe_deserialization", set()),
        ("tf.random", set()),
        ("np.random", {"soar_tf/datasets/sampling.py"}),
    ],
)
def test_a_mechanism_lives_in_one_place(needle, places):
    found = set()
    for path in SOURCES:
        code = ast.unparse(_without_docstrings(ast.parse(path.read_text())))
        if needle in code and "second_order" not in str(path):
            found.add(str(path.relative_to(ROOT)))
    assert found == places


# Private names of other libraries than Keras, in the one place that needs each.
PRIVATE = {
    "cli/completion.py": {"_check_version"},  # click's script, which would start a shell
    "cli/startup.py": {"_exit"},
    "soar_tf/evaluation/straight_through.py": {"_clear_attr", "_update_input"},
    "soar_tf/training/replicas.py": {"_num_workers"},
    "soar_tf/training/strategies.py": {"_id_in_cluster", "_num_workers"},
}


def test_keras_private_names_are_in_one_file():
    adapter = PACKAGE / "models" / "keras_internals.py"
    keras_names = _private_names(adapter, own=True)
    for path in SOURCES:
        if path == adapter:
            continue
        name = str(path.relative_to(ROOT))
        assert _private_names(path) - {"_replace"} == PRIVATE.get(name, set()), name
        text = path.read_text()
        assert not [n for n in keras_names if f'"{n}"' in text or f"self.{n}" in text], name
        assert "keras.src" not in text or path.name == "known_names.py", name


def _private_names(path, own=False):
    """The private attributes of other objects that a file names; `own`: of `self`, too."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and (own or not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")))
    }


def _without_docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                item
                for item in body
                if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
            ] or [ast.Pass()]
    return tree


MOST_LINES, MOST_CODE_LINES = 300, 40
# What is larger: this only gets shorter. A number is what the file or function has at most.
LARGE_FILES = {
    "soar_tf/datasets/images.py": 317,
    "soar_tf/evaluation/evaluator.py": 347,
    "soar_tf/files.py": 305,
    "soar_tf/models/probe.py": 312,
    "soar_tf/training/robust_model.py": 338,
}
LARGE_FUNCTIONS = {
    "soar_tf/datasets/pipeline.py: training_pipeline": 59,
    "soar_tf/evaluation/corruptions.py: corruption_accuracies": 42,
    "soar_tf/evaluation/curve.py: accuracy_curve": 48,
    "soar_tf/evaluation/masking.py: masking_report": 56,
    "soar_tf/evaluation/transfer.py: transfer_matrix": 44,
    "soar_tf/methods/soar.py: __init__": 72,
    "soar_tf/models/findings.py: output_values": 50,
    "soar_tf/models/probe.py: examine": 43,
    "soar_tf/models/probe.py: _gradients": 49,
    "soar_tf/paper/reproduce.py: reproduce": 56,
    "soar_tf/training/robust_model.py: train_step": 48,
    "soar_tf/training/step.py: part": 56,
}


def test_files_stay_small():
    sizes = {_name(path): len(path.read_text().splitlines()) for path in SOURCES}
    _assert_small(sizes, MOST_LINES, LARGE_FILES)


def test_functions_stay_small():
    """Docstrings, comments and blank lines do not count."""
    sizes = {}
    for path in SOURCES:
        lines = path.read_text().splitlines()
        tree = ast.parse(path.read_text())
        texts = {
            number
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            for number in range(node.lineno, node.end_lineno + 1)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                numbers = set(range(node.lineno, node.end_lineno + 1)) - texts
                code = [n for n in numbers if lines[n - 1].strip()[:1] not in ("", "#")]
                name = f"{_name(path)}: {node.name}"
                sizes[name] = max(len(code), sizes.get(name, 0))
    _assert_small(sizes, MOST_CODE_LINES, LARGE_FUNCTIONS)


def _name(path):
    return str(path.relative_to(ROOT))


def _assert_small(sizes, most, larger):
    too_large = {name: size for name, size in sizes.items() if size > larger.get(name, most)}
    assert not too_large
    small_now = [name for name in larger if sizes.get(name, 0) <= most]
    assert not small_now, "leave these out of the list"


def test_pyproject_names_every_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in _files(PACKAGE)
        if path.name == "__init__.py"
    }
    assert set(declared["packages"]) == found | {"soar_tf.cli"}


def test_no_top_level_module_named_cli_is_installed(tmp_path):
    code = "import soar_tf.cli.main\ntry:\n    import cli\nexcept ImportError:\n    print('none')"
    import subprocess

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout == "none\n"
