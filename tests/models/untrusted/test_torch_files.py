"""PyTorch checkpoints from elsewhere: nothing in them runs, and damage is one message."""

import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from soar_tf.errors import InputError
from soar_tf.models.untrusted import torch_files

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch_writer


class Bomb:
    """What a hostile checkpoint holds: loading it with `pickle` writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_does_not_run(tmp_path):
    value = {"state_dict": {"w": np.arange(6.0)}, "args": Bomb(tmp_path / "written")}
    torch_writer.save(tmp_path / "m.pt", value)
    found = torch_files.read(tmp_path / "m.pt", "x")
    np.testing.assert_array_equal(found["w"], np.arange(6.0))
    assert not (tmp_path / "written").exists()
    # The same bytes are a real weapon.
    pickle.loads(pickle.dumps(Bomb(tmp_path / "written"))).close()
    assert (tmp_path / "written").exists()


def test_tensors_of_every_layout(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "plain": generator.normal(size=(2, 3, 4)).astype("float32"),
        "transposed": generator.normal(size=(3, 5)).T,
        "half": generator.normal(size=7).astype("float16"),
        "scalar": np.array(3),
        "empty": np.zeros((0, 4), "float32"),
    }
    torch_writer.save(tmp_path / "m.pt", arrays)
    found = torch_files.read(tmp_path / "m.pt", "x")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_bfloat16_is_the_upper_half_of_a_float32():
    values = np.array([1.0, -2.5, 0.0, 3.0e38], "float32")
    upper = (values.view("<u4") >> 16).astype("<u2").tobytes()
    found = torch_files._array(upper, "bf16")
    np.testing.assert_allclose(found, values, rtol=2**-7)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),  # beyond the end
        (3, (4,), (1,)),
        (0, (2, 2), (6, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (10**9, 10**9), (0, 0)),  # one number, repeated
        (0, (2, 3), (1,)),
    ],
)
def test_a_tensor_stays_in_its_storage(offset, size, stride):
    with pytest.raises(ValueError):
        torch_files._tensor(np.arange(6.0), offset, size, stride)


def test_damage_is_one_message(tmp_path):
    path = tmp_path / "m.pt"
    torch_writer.save(path, {"w": np.arange(6.0)})
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("archive/data.pkl")
    generator = np.random.default_rng(0)
    for content in (b"", b"hello", path.read_bytes()[:60]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as a PyTorch checkpoint"):
            torch_files.read(path, "x")
    for _ in range(300):
        damaged = bytearray(pickled)
        damaged[int(generator.integers(len(damaged)))] = int(generator.integers(256))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", bytes(damaged))
            archive.writestr("archive/data/0", np.arange(6.0).tobytes())
        try:
            torch_files.read(path, "x")
        except InputError as error:
            assert "\n" not in str(error)


def test_damaged_safetensors(tmp_path):
    path = tmp_path / "m.safetensors"
    header = b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 80]}}'
    for content in (b"", b"\xff" * 20, len(header).to_bytes(8, "little") + header + b"12345678"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as safetensors"):
            torch_files.read(path, "x")
