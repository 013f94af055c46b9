"""The file behind a state: cut at any byte or hit by any fault, it gives whole records or none."""

import errno
import os

import numpy as np
import pytest

from soar_tf.errors import InputError, RunError
from soar_tf.evaluation import state_log
from soar_tf.evaluation.state_log import MAGIC, StateLog

NOTHING = np.empty(0, np.uint8)
RECORDS = [
    [({"kind": "a", "number": number}, np.arange(number, dtype="<f4")), ({"kind": "b"}, NOTHING)]
    for number in range(4)
]


def entries(path):
    """What the file holds: pairs of an entry and its data."""
    log = StateLog.open(path)
    return [
        (entry, log.array(place, np.uint8, entry["bytes"]).tobytes())
        for entry, place in log.entries()
    ]


@pytest.fixture
def whole(tmp_path):
    """The bytes of a file of `RECORDS`, and the sizes that it had after each."""
    path, sizes = tmp_path / "whole.state", [len(MAGIC)]
    log, _ = StateLog.create(path, RECORDS[:1])
    for record in RECORDS[1:]:
        sizes.append(path.stat().st_size)
        log.append(record)
    return path.read_bytes(), [*sizes, path.stat().st_size]


def test_what_is_written_is_read(whole, tmp_path):
    found = entries(tmp_path / "whole.state")
    wanted = [(entry, array.tobytes()) for record in RECORDS for entry, array in record]
    assert [({**e, "bytes": len(data)}, data) for e, data in wanted] == found


def test_appending_leaves_what_was_there(whole):
    content, sizes = whole
    assert sizes == sorted(set(sizes)) and len(content) == sizes[-1]
    assert content.startswith(MAGIC)


def test_cut_at_any_byte_it_holds_the_whole_records(whole, tmp_path):
    content, sizes = whole
    expected = entries(tmp_path / "whole.state")
    for length in range(len(MAGIC), len(content) + 1):
        (tmp_path / "cut").write_bytes(content[:length])
        count = sum(size <= length for size in sizes[1:])
        assert entries(tmp_path / "cut") == expected[: 2 * count]


def test_resuming_after_any_cut_gives_the_same_file(whole, tmp_path):
    content, _ = whole
    cut = tmp_path / "cut"
    for length in range(len(MAGIC), len(content), 7):
        cut.write_bytes(content[:length])
        log = StateLog.open(cut)
        done = len(list(log.entries())) // 2
        for record in RECORDS[done:]:
            log.append(record)
        assert cut.read_bytes() == content


def test_zeros_behind_the_last_record_are_dropped(whole, tmp_path):
    content, sizes = whole
    (tmp_path / "zeros").write_bytes(content[: sizes[2]] + bytes(5000))
    assert len(entries(tmp_path / "zeros")) == 4


def test_any_flipped_bit_is_refused_or_costs_the_last_record(whole, tmp_path):
    content, sizes = whole
    expected = entries(tmp_path / "whole.state")
    refused = 0
    for place in range(len(MAGIC), len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "bad").write_bytes(damaged)
        try:
            assert entries(tmp_path / "bad") == expected[:-2]
            assert place >= sizes[-2]
        except InputError as error:
            assert "damaged: its checksum is wrong" in str(error)
            refused += 1
    assert refused >= sizes[-2] - len(MAGIC)


def test_a_record_that_is_missing_doubled_or_moved_is_refused(whole, tmp_path):
    content, sizes = whole
    parts = [content[a:b] for a, b in zip([0, *sizes], sizes, strict=False)]
    for order in ((0, 1, 3, 4), (0, 1, 2, 2, 3, 4), (0, 2, 1, 3, 4), (0, 2, 3, 4)):
        (tmp_path / "bad").write_bytes(b"".join(parts[number] for number in order))
        with pytest.raises(InputError, match="damaged"):
            entries(tmp_path / "bad")


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "s.state"
    log, _ = StateLog.create(path, RECORDS[:2])
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(state_log.os, "fsync", full)
        log.append(RECORDS[2])
    assert path.read_bytes() == before
    log.append(RECORDS[2])
    assert len(entries(path)) == 6


def test_another_writer_is_noticed(tmp_path):
    path = tmp_path / "s.state"
    StateLog.create(path, RECORDS[:1])
    one, two = StateLog.open(path), StateLog.open(path)
    assert list(one.entries()) == list(two.entries())
    one.append(RECORDS[1])
    with pytest.raises(RunError, match="written by something else"):
        two.append(RECORDS[1])
    one.append(RECORDS[2])
    path.unlink()
    with pytest.raises(FileNotFoundError):
        one.append(RECORDS[3])


def test_links_are_not_written_through(tmp_path):
    StateLog.create(tmp_path / "there", RECORDS[:1])
    (tmp_path / "link").symlink_to(tmp_path / "there")
    log = StateLog.open(tmp_path / "link")
    list(log.entries())
    with pytest.raises(OSError, match="symbolic"):
        log.append(RECORDS[1])
