"""Files that anybody may have put there: special ones are refused, no link is written through."""

import contextlib
import io
import os
import signal
import socket
import stat
import zipfile

import h5py
import numpy as np
import pytest

from soar_tf import datasets, files
from soar_tf.datasets import records
from soar_tf.errors import InputError
from soar_tf.evaluation import State
from soar_tf.models import loading, zoo
from soar_tf.models.untrusted import archives, saved_models
from soar_tf.reports import pictures
from soar_tf.runs import checkpoints, run_directory
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.config_file import read_toml


@pytest.fixture(autouse=True)
def _fail_instead_of_waiting():
    """A read from a pipe that nobody writes to would never end, and neither would the tests."""

    def give_up(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as place:
        place.bind(path.name)  # the name may have 100 characters only


def make_folder(path):
    path.mkdir()


def make_device(path):
    path.symlink_to("/dev/zero")  # making a device is for root alone


SPECIAL = [make_pipe, make_socket, make_folder, make_device]


def from_run(path):
    """Opens the folder of a run in which one file is `path`."""
    run_directory.RunDirectory(path.parent, TrainConfig().resolved(fine_tunes=True))


# The name that a reader's file has to have, and the reader.
READERS = {
    "--config": ("run.toml", read_toml),
    "manifest": ("manifest.json", files.read_json),
    "card": (zoo.CARD, lambda path: zoo.read_card(path.parent)),
    "state": ("evaluation.state", State),
    "npz": ("set.npz", lambda path: datasets.load(f"npz:{path}")),
    "keras": ("model.keras", loading.load_network),
    "saved model": ("saved_model.pb", lambda path: saved_models.check(path.parent, "model")),
    "saved weights": (
        "saved/variables.index",
        lambda path: saved_models.check(path.parent, "model"),
    ),
    "config.toml": ("config.toml", from_run),
    "lock": (".lock", from_run),
    "report": ("report.json", lambda path: pictures._read(path)),
    "log": ("log.csv", lambda path: pictures._read(path)),
    "adversarial images": ("adversarial.npz", pictures._grid),
}


@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(reader, make, tmp_path):
    name, read = READERS[reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    if (reader, make) == ("saved weights", make_folder):
        make_pipe(path / "deep")
    refused = "Received: (a |the link)|must hold no links|holds none of"
    with pytest.raises(InputError, match=refused) as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
def test_a_checkpoint_that_is_no_regular_file_is_damaged(make, tmp_path, capsys):
    make(tmp_path / "000-000001.0123456789abcdef.weights.h5")
    assert checkpoints.newest(tmp_path) == (None, None)
    assert "must be a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("reader", ["--config", "manifest", "state", "saved model", "report"])
def test_a_file_that_is_too_large_is_refused_unread(reader, tmp_path):
    name, read = READERS[reader]
    with open(tmp_path / name, "wb") as file:
        file.truncate(2**40)  # a hole, which needs no room
    with pytest.raises(InputError, match=r"must have at most \d+ bytes. Received: 1099511627776"):
        read(tmp_path / name)


def test_a_file_that_says_it_is_empty_is_read_to_the_bound_only():
    with pytest.raises(InputError, match="/proc/self/maps must have at most 10 bytes"):
        files.read_bytes("/proc/self/maps", max_bytes=10)


def test_a_link_to_a_regular_file_is_read_unless_it_must_not_be(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert files.read_bytes(tmp_path / "link") == b"x"
    with pytest.raises(InputError, match="Received: a link"):
        files.open_regular(tmp_path / "link", follow=False)


class TestWriting:
    """Somebody prepared the folder; the file that they want to see changed lies elsewhere."""

    @pytest.fixture
    def precious(self, tmp_path):
        path = tmp_path / "precious.txt"
        path.write_text("precious")
        yield path
        assert path.read_text() == "precious" and stat.S_ISREG(path.lstat().st_mode)

    @pytest.fixture
    def run(self, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        return folder

    def test_a_lock_that_is_a_link_is_refused(self, precious, run):
        (run / ".lock").symlink_to(precious)
        with pytest.raises(InputError, match=".lock must be a regular file. Received: a link"):
            from_run(run / ".lock")

    def test_a_lock_that_is_a_link_to_nothing_creates_nothing(self, tmp_path, run):
        (run / ".lock").symlink_to(tmp_path / "new")
        with pytest.raises(InputError, match="Received: a link"):
            from_run(run / ".lock")
        assert not (tmp_path / "new").exists()

    def test_a_lock_that_is_another_files_second_name_leaves_it_alone(self, precious, run):
        os.link(precious, run / ".lock")
        run_directory.RunDirectory(run, TrainConfig().resolved(fine_tunes=True)).close()

    @pytest.mark.parametrize("name", ["config.toml", "manifest.json", "log.csv", "model.keras"])
    def test_a_runs_file_that_is_a_link_is_refused(self, name, precious, run):
        config = TrainConfig().resolved(fine_tunes=True)
        if name != "config.toml":
            run_directory.RunDirectory(run, config).close()
        (run / name).symlink_to(precious)
        with pytest.raises(InputError, match=f"Received: the link {name}"):
            run_directory.RunDirectory(run, config)

    def test_a_name_that_is_written_under_first_cannot_be_guessed(self, precious, run):
        names = {files.unfinished(run / "config.toml").name for _ in range(100)}
        assert len(names) == 100 and all(name.startswith(files.UNFINISHED) for name in names)
        (run / f"{files.UNFINISHED}{os.getpid()}-config.toml").symlink_to(precious)
        from_run(run / "config.toml")

    def test_writing_replaces_a_link_and_not_what_it_leads_to(self, precious, run):
        (run / "report.json").symlink_to(precious)
        files.write_json(run / "report.json", {})
        assert not (run / "report.json").is_symlink()

    def test_a_subfolder_that_is_a_link_is_refused(self, tmp_path, run):
        (tmp_path / "elsewhere").mkdir()
        (run / "measurements").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="measurements must be a folder. Received: a link"):
            files.make_subfolder(run, "measurements")
        assert files.make_subfolder(run / "new", "networks").is_dir()


class TestStateBombs:
    """State files are archives like any other."""

    def write(self, path, arrays, compression=zipfile.ZIP_DEFLATED):
        import hashlib

        from soar_tf.evaluation import old_state

        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, data in arrays.items():
                archive.writestr(f"{name}.npy", data)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest().encode()
        path.write_bytes(old_state.MAGIC + digest + b"\n" + content)
        return path

    @staticmethod
    def array(values, pickle=False):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, values, allow_pickle=pickle)
        return buffer.getvalue()

    def test_a_bomb_is_refused_before_it_is_unpacked(self, tmp_path, monkeypatch):
        monkeypatch.setattr(archives, "SMALL_BYTES", 10**6)
        zeros = self.array(np.zeros(2 * 10**6, "u1"))
        path = self.write(tmp_path / "a.state", {"about": zeros})
        with pytest.raises(InputError, match="must not expand more than 100 times"):
            State(path)

    def test_a_header_that_promises_terabytes_is_refused(self, tmp_path):
        header = io.BytesIO()
        shape = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
        np.lib.format.write_array_header_1_0(header, shape)
        path = self.write(tmp_path / "a.state", {"about": header.getvalue()})
        with pytest.raises(InputError, match="must be as long as its header says"):
            State(path)

    def test_objects_are_refused(self, tmp_path):
        objects = np.empty(1, object)
        path = self.write(tmp_path / "a.state", {"about": self.array(objects, pickle=True)})
        with pytest.raises(InputError, match="objects, which only unsafe pickles can hold"):
            State(path)

    def test_a_member_that_leaves_the_folder_is_refused(self, tmp_path):
        path = self.write(tmp_path / "a.state", {"../about": self.array(np.zeros(3, "u1"))})
        with pytest.raises(InputError, match="must hold files inside itself only"):
            State(path)


def checkpoint(folder, write):
    """A checkpoint with the right checksum in its name, whose content is another matter."""
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        write(file)
        file.attrs["soar_tf_progress"] = '{"phase": 0, "epoch": 1}'
    return path.rename(folder / f"000-000001.{checkpoints._checksum(path)}.weights.h5")


def test_a_checkpoint_is_checked_as_any_weights_file_is(tmp_path, capsys):
    path = checkpoint(tmp_path, lambda file: file.create_dataset("a", data=np.zeros(3)))
    assert checkpoints.newest(tmp_path)[0] == path
    path.unlink()
    checkpoint(tmp_path, lambda file: file.create_dataset("a", (2**31,), "f4", chunks=(2**20,)))
    assert checkpoints.newest(tmp_path) == (None, None)
    assert "0 bytes that become 8589934592" in capsys.readouterr().err


@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
def test_records_that_are_no_regular_file_are_refused(make, tmp_path):
    make(tmp_path / "shard")
    with pytest.raises(InputError, match="must be a regular file"):
        records.TFRecords.scanned([tmp_path / "shard"])
    pytest.importorskip("array_record")
    with pytest.raises(InputError, match="must be a regular file"):
        records.ArrayRecords([tmp_path / "shard"])
