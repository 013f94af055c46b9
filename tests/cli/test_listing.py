"""`soar-tf list`: the reference in the documents is the one that it prints."""

from pathlib import Path

from soar_tf import methods, registry

ROOT = Path(__file__).parents[2]


def test_the_methods_reference_is_current(run_cli):
    printed = run_cli("list", "methods", "--markdown").stdout
    assert printed == (ROOT / "docs" / "methods.md").read_text()
    for name, cls in methods.ALL_OBJECTS.items():
        section = printed.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for argument in registry.argument_names(cls):
            row = next(line for line in section.splitlines() if f"| `{argument}` |" in line)
            assert len(row.split("|")[-2].strip()) > 10, row  # a meaning


def test_presets_and_datasets_have_no_reference(run_cli):
    result = run_cli("list", "presets", "--markdown", expect=2)
    assert "`--markdown` is for methods, attacks and networks" in result.stderr
