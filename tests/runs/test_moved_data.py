"""A run resumes when its data have been moved: their fingerprint counts, not their place."""

import tomllib

import pytest

from soar_tf.errors import InputError
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.run_directory import CONFIG, RunDirectory


def _open(path, **settings):
    RunDirectory(path, TrainConfig(**settings).resolved(fine_tunes=True)).close()
    return tomllib.loads((path / CONFIG).read_text())


def test_another_data_dir_is_no_other_configuration_and_is_remembered(tmp_path):
    run = tmp_path / "run"
    first = _open(run, data_dir="/old", seed=3)
    assert first["data_dir"] == "/old"
    assert _open(run, data_dir="/new", seed=3) == {**first, "data_dir": "/new"}
    text = (run / CONFIG).read_text()
    _open(run, data_dir="/new", seed=3)
    assert (run / CONFIG).read_text() == text
    assert "data_dir" not in _open(run, seed=3)


def test_another_seed_still_is_one(tmp_path):
    _open(tmp_path, data_dir="/old", seed=3)
    with pytest.raises(InputError, match="seed is 3 there and 4 here"):
        _open(tmp_path, data_dir="/new", seed=4)
