"""The records of TFRecord shards and of array_record files, by number."""

import functools
import os
import pathlib
import struct
import threading

import numpy as np

from soar_tf import files
from soar_tf.errors import InputError

_OPEN_READERS = 64
_LENGTH, _CHECKSUM = 8, 4  # bytes before and around a TFRecord's data


class TFRecords:
    """The records of TFRecord shards, one after the other, by number.

    Args:
        paths: The shards' paths, in order.
        starts: int64 `[N]`: where each record's data begins in its shard.
        lengths: int64 `[N]`: the data's length in bytes.
        shards: int64 `[N]`: the number of each record's shard.
    """

    def __init__(self, paths, starts, lengths, shards):
        self.paths = [pathlib.Path(path) for path in paths]
        self.starts, self.lengths, self.shards = starts, lengths, shards

    @classmethod
    def scanned(cls, paths):
        """Goes through the shards from record to record, reading only the lengths.

        Raises:
            InputError: If a shard ends within a record.
        """
        starts, lengths, shards = [], [], []
        for number, path in enumerate(paths):
            with files.open_regular(path) as shard:
                size, place = shard.seek(0, os.SEEK_END), 0
                while place < size:
                    shard.seek(place)
                    head = shard.read(_LENGTH + _CHECKSUM)
                    length = struct.unpack("<Q", head[:_LENGTH])[0] if len(head) >= 8 else size
                    begin = place + _LENGTH + _CHECKSUM
                    place = begin + length + _CHECKSUM
                    if place > size:
                        raise InputError(f"{path} must hold whole records. Received: a cut file.")
                    starts.append(begin)
                    lengths.append(length)
                    shards.append(number)
        return cls(paths, *(np.array(column, np.int64) for column in (starts, lengths, shards)))

    def __len__(self):
        return len(self.starts)

    def read(self, indices):
        """The bytes of the records at `indices` (int `[n]`), a list."""
        contents = {}
        # Opened anew each time: a set of a thousand shards would use up the process's files.
        for number, positions in _by_shard(self.shards[np.asarray(indices)]):
            with open(self.paths[number], "rb", buffering=0) as shard:
                for position in positions:
                    contents[position] = self._content(shard.fileno(), indices[position])
        return [contents[position] for position in range(len(indices))]

    def _content(self, descriptor, index):
        length = int(self.lengths[index])
        content = os.pread(descriptor, length, int(self.starts[index]))
        if len(content) != length:
            raise ValueError("the file is shorter than when it was indexed")
        return content

    def place(self, index):
        """The file of a record."""
        return self.paths[int(self.shards[index])]


def _by_shard(shards):
    """Pairs of a shard's number and the positions in `shards` (int `[n]`) that name it."""
    for number in np.unique(shards):
        yield int(number), np.flatnonzero(shards == number).tolist()


class ArrayRecords:
    """The records of array_record files, one after the other, by number.

    Args:
        paths: The files' paths, in order.

    Raises:
        InputError: If the package array_record is missing or a file cannot be read.
    """

    def __init__(self, paths):
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise InputError(
                "Data sets in array_record files need the package array-record. Received: it is "
                "not installed (pip install array-record)."
            ) from error
        self.paths = [pathlib.Path(path) for path in paths]
        self._local, self._module = threading.local(), array_record_module
        self.counts = [self._open(path).num_records() for path in self.paths]
        self._ends = np.cumsum(self.counts)

    def _open(self, path):
        files.open_regular(path).close()  # a pipe would be waited for
        # Without reading ahead: the next record is somewhere else.
        return self._module.ArrayRecordReader(str(path), options="readahead_buffer_size:0")

    def _reader(self, path):
        """A reader has a place in its file, so each thread has its own; the last ones stay open."""
        if not hasattr(self._local, "open"):
            self._local.open = functools.lru_cache(_OPEN_READERS)(self._open)
        return self._local.open(path)

    def __len__(self):
        return int(sum(self.counts))

    def read(self, indices):
        """The bytes of the records at `indices` (int `[n]`), a list."""
        indices, contents = np.asarray(indices), {}
        for shard, positions in _by_shard(np.searchsorted(self._ends, indices, side="right")):
            rows = indices[positions] - (self._ends[shard] - self.counts[shard])
            found = self._reader(self.paths[shard]).read(rows.tolist())
            contents.update(zip(positions, found, strict=True))
        return [contents[position] for position in range(len(indices))]

    def place(self, index):
        """The file of a record."""
        return self.paths[int(np.searchsorted(self._ends, index, side="right"))]
