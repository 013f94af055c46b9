"""`make audit`: are there known vulnerabilities in what soar-tf installs?

pip-audit asks PyPI's JSON API. Behind a mirror that has none, it skips every package and still says
that nothing was found; so its report is counted here, and a check that did not happen is called so.
Exit code 1 only for vulnerabilities.
"""

import json
import subprocess
import sys


def main():
    """Runs pip-audit on the installed packages and says what it could tell."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--skip-editable",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--timeout",
        "10",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        sys.exit(verdict(json.loads(done.stdout)["dependencies"]))
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print("pip-audit could not reach PyPI: the dependencies were NOT audited.")


def verdict(packages):
    """Prints what was found; returns the exit code.

    Args:
        packages: The `dependencies` of pip-audit's JSON report.
    """
    audited = [package for package in packages if "skip_reason" not in package]
    found = [(p, v) for p in audited for v in p["vulns"]]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability.get("fix_versions", [])) or "no version yet"
        print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    if not audited:
        print(f"The package index told nothing of {len(packages)} packages: NOT audited.")
    elif len(audited) < len(packages):
        print(f"{len(audited)} of {len(packages)} packages audited, {len(found)} vulnerabilities.")
    else:
        print(f"{len(packages)} packages audited, {len(found)} vulnerabilities.")
    return 1 if found else 0


if __name__ == "__main__":
    main()
