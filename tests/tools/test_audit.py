"""The audit says what it could not find out."""

import importlib.util
import pathlib

PATH = pathlib.Path(__file__).parents[2] / "tools" / "audit.py"
SPEC = importlib.util.spec_from_file_location("audit", PATH)
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

SKIPPED = {"name": "a", "skip_reason": "not found"}
CLEAN = {"name": "b", "version": "1", "vulns": []}
HOLE = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}


def test_a_check_that_did_not_happen_is_not_called_a_pass(capsys):
    assert audit.verdict([SKIPPED, SKIPPED]) == 0
    assert "2 packages: NOT audited" in capsys.readouterr().out
    assert audit.verdict([SKIPPED, CLEAN]) == 0
    assert "1 of 2 packages audited, 0 vulnerabilities" in capsys.readouterr().out


def test_vulnerabilities_fail(capsys):
    assert audit.verdict([CLEAN, HOLE]) == 1
    assert "c 2: CVE-1, fixed in 3" in capsys.readouterr().out
    assert audit.verdict([CLEAN]) == 0
