"""What a run was made with, so that somebody else can tell what may differ."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from soar_tf.errors import InputError

_KERNEL_FLAGS = ("sse", "ssse", "avx", "fma", "f16c", "amx", "bmi")


def environment():
    """Versions, machine and code of this process, as a JSON-serializable dictionary."""
    import tensorflow as tf

    names = ("soar-tf", "tensorflow", "tensorflow-cpu", "keras", "numpy", "tensorflow-datasets")
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **_versions(names)},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "processor": _cpuinfo("model name") or platform.processor(),
        "cpu_flags": _cpu_flags(),
        "cpu_count": os.cpu_count(),
        "threads": _threads(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "op_determinism": op_determinism(),
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
    }


def numerics():
    """What can change a run's bits from one machine to another, flat: `{what: value}`."""
    now = environment()
    return {
        **now["versions"],
        **{name: now[name] for name in ("processor", "cpu_flags", "onednn")},
        **{f"{name} threads": count for name, count in now["threads"].items()},
        "devices": " ".join(now["devices"]),
    }


def op_determinism():
    """Whether TensorFlow refuses operations that are not deterministic."""
    from tensorflow.python.framework import config  # no public name tells

    return config.is_op_determinism_enabled()


def continued(environments, place, allow_mixed, workdir):
    """The environments that a run was computed in, with this process's if it is another.

    A later version of this package resumes what an earlier one began, and is only recorded.

    Args:
        environments: List of dictionaries so far: `numerics`, and the `phase` and `epoch` they
            began after (and the `step` of the next epoch, if within one).
        place: Where the checkpoint to resume from is: `phase`, `epoch` and, within one, `step`.
        allow_mixed: Whether another environment than the last one may go on.
        workdir: The run directory, for the error.

    Returns:
        The list.

    Raises:
        InputError: If this environment is another one and that was not allowed.
    """
    now = numerics()
    here = {**place, **now}
    if not environments:
        return [here]
    last = environments[-1]
    changed = [name for name in {**now, **last} if last.get(name) != now.get(name)]
    changed = [name for name in changed if name not in ("phase", "epoch", "step")]
    if not changed:
        return environments
    refused = [name for name in changed if name != "soar-tf"]
    if refused and not allow_mixed:
        name = refused[0]
        raise InputError(
            f"`workdir` {workdir} was computed with {_difference(name, last.get(name))}; here it "
            f"is {now.get(name)}, which can change the bits of the result: go on where it was "
            "begun, or allow the mixture by --allow-mixed-environment."
        )
    return [*environments, here]


def _difference(name, value):
    return f"{name} {'absent' if value is None else value}"


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


def _threads():
    """The sizes of TensorFlow's thread pools; 0, its default, means every core it may use."""
    import tensorflow as tf

    cores = len(os.sched_getaffinity(0))
    return {
        "intra_op": tf.config.threading.get_intra_op_parallelism_threads() or cores,
        "inter_op": tf.config.threading.get_inter_op_parallelism_threads() or cores,
    }


def _cpu_flags():
    """The processor's flags by which TensorFlow and oneDNN choose their kernels."""
    flags = _cpuinfo("flags").split()
    return " ".join(sorted(flag for flag in flags if flag.startswith(_KERNEL_FLAGS)))


def _cpuinfo(key):
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
