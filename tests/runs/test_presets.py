"""Presets: each can be trained and has figures; flags win."""

import tomllib
from pathlib import Path

import pytest

from soar_tf import methods, registry
from soar_tf.errors import InputError
from soar_tf.runs import config, presets

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", registry.PRESETS)
def test_a_preset_is_a_configuration_with_figures(name):
    preset = registry.PRESETS[name]
    method = methods.get(preset.settings["method"], **preset.settings.get("method_args", {}))
    config.TrainConfig(**preset.settings).resolved(fine_tunes=method.starts_from_standard)
    assert (ROOT / preset.evidence).is_file()


def test_flags_win_over_a_preset(tiny, tmp_path, run_cli):
    run_cli(
        "train",
        "--preset",
        "soar-batch-mean",
        "--method-arg",
        "norm_clip=5",
        *tiny[:-2],
        "--evaluate",
        "0",
        "--pretrain-epochs",
        "1",
        "--epochs",
        "1",
        "--workdir",
        tmp_path / "run",
    )
    stored = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert stored["method_args"]["lambda_"] == 0.5 / 128
    assert stored["method_args"]["norm_clip"] == 5.0
    assert "preset" not in stored


def test_unknown_presets_and_other_methods(tmp_path, run_cli):
    with pytest.raises(InputError, match="Did you mean 'soar-batch-mean'"):
        presets.get("soar-batch-meen")
    arguments = ("train", "--preset", "soar-batch-mean", "--method", "fast")
    result = run_cli(*arguments, "--workdir", tmp_path / "run", expect=2)
    assert "is for the method 'soar'. Received: method 'fast'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_presets_are_listed(run_cli):
    assert set(run_cli("list", "presets", "--json").json) == set(registry.PRESETS)
    assert "    method=fast, epochs=30\n" in run_cli("list", "presets").stdout
