"""What a run was made with, so that somebody else can tell what may differ."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def environment():
    """Versions, machine and code of this process, as a JSON-serializable dictionary."""
    import tensorflow as tf

    names = ("soar-tf", "tensorflow", "tensorflow-cpu", "keras", "numpy", "tensorflow-datasets")
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **_versions(names)},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "threads": {
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
        },
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
    }


def _versions(names):
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_commit():
    """The commit of the checkout that this code runs from, or `None` if it was installed."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain"])
        commit, changes = (
            subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10).stdout
            for command in commands
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.strip() + ("-modified" if changes.strip() else "") or None


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
