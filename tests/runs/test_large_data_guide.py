"""The guide to large data: its command for two hosts, run as two processes on a small folder."""

import re
import shlex
import subprocess
import sys

import keras
import pytest
import snippets
from snippets import ROOT

from benchmarks.scale_out import free_ports

GUIDE = "docs/guides/large_data.md"


def command():
    """The guide's command for rank 0, as a list without `soar-tf`."""
    text = (ROOT / GUIDE).read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- not run: [^>]+ -->\n```sh\n(.*?)```", text, re.S)
    return shlex.split(code.replace("\\\n", " "))[1:]


def test_the_command_is_for_two_hosts():
    words = command()
    assert words[0] == "train" and words[words.index("--hosts") + 1].count(",") == 1
    assert words[-2:] == ["--rank", "0"]


@pytest.mark.slow
def test_two_processes_train_on_a_small_copy(tmp_path):
    hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    snippets.presupposed(command(), tmp_path, None)
    processes = []
    for rank in (0, 1):
        words = snippets.small(command())
        words[words.index("--hosts") + 1] = hosts
        words[words.index("--rank") + 1] = str(rank)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "soar_tf.cli", *words],
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]
    network = keras.saving.load_model(tmp_path / "runs" / "together" / "model.keras")
    assert network.input_shape == (None, 32, 32, 3)
