"""What many tests share: small data, small networks, the command line, real CIFAR-10 if present."""

import json
import shlex
import signal
from pathlib import Path

from soar_tf.cli.startup import load_tensorflow

load_tensorflow()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs so; the tests of Ctrl-C need it, in their child processes, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import keras  # noqa: E402 (after the quiet import of TensorFlow)
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from tensorflow.python.framework import config as framework_config  # noqa: E402

from soar_tf import datasets  # noqa: E402
from soar_tf.cli.main import main  # noqa: E402

TFDS_FOLDER = Path(__file__).parents[2] / "shared" / "tfds"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what took long when it was last measured; see `tools/slow_tests.py`."""
    listed = set((Path(__file__).parent / "slow_tests.txt").read_text().splitlines())
    for item in items:
        if {item.nodeid, item.nodeid.partition("::")[0]} & listed:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _float32_policy():
    """A test that sets a precision must not set it for the next one."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def _no_op_determinism():
    """A test that trains with `deterministic` must not switch XLA off for the next one."""
    yield
    framework_config.disable_op_determinism()


@pytest.fixture(scope="session")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="session")
def cifar10_folder():
    if not TFDS_FOLDER.is_dir():
        pytest.skip("real CIFAR-10 is not present")
    return TFDS_FOLDER


@pytest.fixture
def smooth_network():
    """A small network without kinks: 4 pixels, 3 classes."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dense(3),
        ]
    )


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (12, 2, 2, 1)).astype("float32")
    return x, np.arange(12) % 3


@pytest.fixture
def run_cli():
    """Runs `soar-tf ARGS` in this process; returns click's result, with `.json` on demand."""

    def run(*arguments, expect=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == expect, (result.exit_code, result.stdout, result.stderr)
        result.json = json.loads(result.stdout) if "--json" in arguments else None
        return result

    return run


@pytest.fixture(scope="session")
def tiny():
    """The arguments of a training run that takes seconds; the last two choose its attack."""
    return tuple(
        shlex.split(
            "--dataset digits --network mlp --network-arg width=0.25 --limit 128 "
            "--batch-size 32 --verbose 0 --evaluate 40"
        )
    )


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny):
    """A finished SOAR run on digits: two standard epochs and one of SOAR."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["train", *tiny, "--pretrain-epochs", "2", "--epochs", "1", "--workdir", folder]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
    return folder


@pytest.fixture
def stored_report():
    """A report of `soar-tf evaluate` as JSON, with what every version writes."""
    attack = {"name": "pgd20", "norm": "linf", "epsilon": 0.1, "robust_accuracy": 0.5}
    return {
        "model": "m.keras",
        "dataset": "digits",
        "split": "test",
        "n": 20,
        "seed": 0,
        "batch_size": 256,
        "clean_accuracy": 0.9,
        "worst_case_accuracy": 0.5,
        "worst_case_interval": [0.3, 0.7],
        "reliability": "not checked",
        "note": "An upper bound.",
        "attacks": [attack | {"seconds": 1.0, "images_per_second": 20.0, "config": {}}],
        "data": {"fingerprint": "f00d", "provenance": "Digits."},
        "environment": {
            "command": "soar-tf evaluate m.keras",
            "versions": {"python": "3.11"},
            "git_commit": None,
            "processor": "P",
            "cpu_count": 2,
            "devices": ["CPU"],
        },
    }
