"""Methods, attacks and networks of other distributions, through entry points."""

import re
import sys
import tomllib
from pathlib import Path

import keras
import pytest

import soar_tf
from soar_tf.errors import InputError
from soar_tf.registry import registry

GUIDE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution on the path: its metadata, its entry points and its modules."""

    def write(name, entry_points, **modules):
        site = tmp_path / name
        folder = site / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entry_points)
        for module, code in modules.items():
            (site / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(site)
        registry._loaded.cache_clear()

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_guides_example_trains_from_the_command_line(install, tiny, tmp_path, run_cli):
    code = next(c for c in re.findall(r"```python\n(.*?)```", GUIDE, re.S) if "Noisy" in c)
    declared = tomllib.loads(re.search(r"```toml\n(.*?)```", GUIDE, re.S)[1])
    points = declared["project"]["entry-points"]["soar_tf.methods"]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    install("noisy_soar", f"[soar_tf.methods]\n{lines}", noisy_training=code)
    listed = run_cli("list", "methods", "--json").json
    assert listed["noisy"] == {
        "summary": "Trains on images with Gaussian noise.",
        "arguments": {"sigma": "0.1"},
    }
    run_cli(
        "train",
        "--method",
        "noisy",
        "--method-arg",
        "sigma=ramp(0, 0.2, epochs=1)",
        *tiny,
        "--attack",
        "fgsm",
        "--epochs",
        "1",
        "--workdir",
        tmp_path / "run",
    )
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert "sigma" in log[0] and len(log) == 2
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["method_args"] == {"sigma": "ramp(0, 0.2, epochs=1)"}
    member = soar_tf.methods.get("sum", methods="noisy+jacobian").methods[0]
    assert member == {"method": "noisy", "sigma": 0.1}
    result = run_cli(
        "train",
        "--method",
        "noisy",
        "--method-arg",
        "sigma=-1",
        *tiny,
        "--workdir",
        tmp_path / "bad",
        expect=2,
    )
    assert "`sigma` must be >= 0" in result.stderr


def test_a_broken_plugin_gives_one_sentence_and_harms_no_other(install, run_cli):
    install(
        "mixed",
        "[soar_tf.methods]\nfine = fine_module:Fine\nbroken = broken_module:X\n"
        "number = fine_module:NUMBER\nsoar = fine_module:Fine\n",
        fine_module="import soar_tf\n"
        "class Fine(soar_tf.methods.Standard):\n    'Fine.'\nNUMBER = 3",
        broken_module="raise OSError('no such licence')",
    )
    install("other", "[soar_tf.methods]\ntwice = other_module:X\n")
    install("third", "[soar_tf.methods]\ntwice = third_module:X\n")
    result = run_cli("list", "methods", "--json")
    assert "fine" in result.json and "broken" not in result.json
    assert "'broken' of mixed cannot be loaded: OSError: no such licence" in result.stderr
    assert "'soar' of mixed is left out: soar-tf has its own 'soar'" in result.stderr
    assert "'number' of mixed cannot be used: fine_module:NUMBER is not one" in result.stderr
    assert "the name is taken twice" in result.stderr
    assert type(soar_tf.methods.get("soar")) is soar_tf.methods.SOAR
    assert type(soar_tf.methods.get("fine")).__name__ == "Fine"
    for name, message in [
        ("broken", "no such licence"),
        ("twice", "taken twice"),
        ("fin", "'fine'"),
    ]:
        with pytest.raises(InputError, match=message):
            soar_tf.methods.get(name)


def test_attacks_and_networks(install, run_cli):
    install(
        "more",
        "[soar_tf.attacks]\nmine = more_module:Mine\n"
        "[soar_tf.networks]\nlinear = more_module:linear\n",
        more_module="import keras, soar_tf\n"
        "class Mine(soar_tf.attacks.PGD):\n    'Mine.'\n"
        "def linear(input_shape, num_classes, bias=True):\n    'Linear.'\n"
        "    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(),\n"
        "                             keras.layers.Dense(num_classes, use_bias=bias)])\n",
    )
    assert soar_tf.attacks.get("mine:steps=3").steps == 3
    network = soar_tf.networks.get("linear", input_shape=(4, 4, 1), num_classes=3, bias=False)
    assert isinstance(network, keras.Model) and network.count_params() == 48
    with pytest.raises(InputError, match="Did you mean 'bias'"):
        soar_tf.networks.get("linear", input_shape=(4, 4, 1), num_classes=3, biass=False)
    for kind, name in [("attacks", "mine"), ("networks", "linear")]:
        assert name in run_cli("list", kind, "--json").json
