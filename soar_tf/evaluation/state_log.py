"""A file that only grows: records that are whole or not there, behind a line that names the form.

A record is a header (sizes, a checksum, and a checksum of the header itself), entries as JSON, and
their data as the bytes of arrays. Each record's checksum also covers the checksum before it, so
that none can be missing, doubled or in another place. What a crash leaves behind the last whole
record is dropped; damage before it is an error.
"""

import hashlib
import json
import os
import struct
import weakref
import zlib

import numpy as np

from soar_tf import files
from soar_tf.errors import InputError, RunError

MAGIC = b"soar-tf evaluation state 2\n"

_MARK = b"part"
_SIZES = struct.Struct("<4sIQ32s")  # the mark, bytes of JSON, bytes of data, checksum of both
_HEADER = _SIZES.size + 4
_CHUNK = 2**20
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class StateLog:
    """An open file of records.

    Args:
        path: The file's path.
        descriptor: A file descriptor of it that can be read; it is closed with the object.
    """

    def __init__(self, path, descriptor):
        self.path = path
        self._read, self._write = descriptor, None
        self._size = os.fstat(descriptor).st_size
        self._end, self._digest = len(MAGIC), hashlib.sha256(MAGIC).digest()
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path):
        """Opens a file for reading; `None` if its first line is another.

        Raises:
            InputError: If it is no regular file.
            OSError: If it cannot be opened.
        """
        with files.open_regular(path, f"`state` {path}") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            return cls(path, os.dup(file.fileno()))

    @classmethod
    def create(cls, path, records):
        """Writes a file that is there as a whole or not at all, in the place of any other.

        Args:
            path: The file's path.
            records: Iterable of records, see `append`.

        Returns:
            The `StateLog`, and for each record the places of its entries' data.
        """
        with files.replacing(path) as temporary:
            temporary.write_bytes(MAGIC)
            log = cls(temporary, os.open(temporary, os.O_RDONLY | os.O_CLOEXEC))
            places = [log.append(record) for record in records]
        log.path = path
        return log, places

    def entries(self):
        """Goes through the whole records, from the first one: yields `(entry, place of its data)`.

        Raises:
            InputError: If a record before the last one is damaged.
            ValueError, KeyError, ...: If a record is of another form.
        """
        while (record := self._next()) is not None:
            place, about = record
            for entry in about:
                yield entry, place
                place += int(entry["bytes"])

    def append(self, record):
        """Adds a record, and syncs it to the disk.

        Args:
            record: List of pairs of an entry, a JSON-serializable dictionary, and its data, a NumPy
                array of numbers.

        Returns:
            The place of each entry's data.

        Raises:
            FileNotFoundError: If the file has been removed.
            RunError: If something else has written to it.
            OSError: If it cannot be written; it is then as it was.
        """
        data = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for _, array in record]
        entries = [
            {**entry, "bytes": array.size} for (entry, _), array in zip(record, data, strict=True)
        ]
        about = json.dumps(entries).encode()
        sizes = [array.size for array in data]
        digest = hashlib.sha256(self._digest + about)
        for array in data:
            digest.update(array.data)
        header = _SIZES.pack(_MARK, len(about), sum(sizes), digest.digest())
        self._add([header, struct.pack("<I", zlib.crc32(header)), about, *(a.data for a in data)])
        first = self._end + _HEADER + len(about)
        self._end = self._size = first + sum(sizes)
        self._digest = digest.digest()
        return [first + sum(sizes[:number]) for number in range(len(sizes))]

    def array(self, place, dtype, shape):
        """The array at a place in the file.

        Raises:
            RunError: If the file has become shorter.
        """
        array = np.empty(shape, dtype)
        target = memoryview(array.reshape(-1).view(np.uint8))
        while len(target):
            count = os.preadv(self._read, [target[: 2**30]], place)
            if count == 0:
                raise RunError(f"`state` {self.path} was cut off while the evaluation ran.")
            target, place = target[count:], place + count
        return array

    def _add(self, buffers):
        """Writes to the end of the file, all or nothing."""
        self._check_place()
        try:
            with open(self._write, "ab", closefd=False) as file:
                for buffer in buffers:
                    file.write(buffer)
            os.fsync(self._write)
        except BaseException as error:
            os.ftruncate(self._write, self._end)
            if isinstance(error, OSError) and error.errno and error.filename is None:
                raise OSError(error.errno, os.strerror(error.errno), str(self.path)) from None
            raise

    def _check_place(self):
        """Makes sure that the file ends with the last record, and that nobody else writes to it."""
        if self._write is None:
            self._write = os.open(self.path, _APPEND)
            weakref.finalize(self, os.close, self._write)
        own, there = os.fstat(self._read), os.fstat(self._write)
        named = os.stat(self.path, follow_symlinks=False)
        if {(own.st_dev, own.st_ino)} != {(s.st_dev, s.st_ino) for s in (there, named)} or (
            own.st_size != self._size
        ):
            raise RunError(
                f"`state` {self.path} was written by something else while the evaluation ran; "
                "give each evaluation a file of its own."
            )
        if self._size > self._end:  # what a crash left
            os.ftruncate(self._write, self._end)
            self._size = self._end

    def _next(self):
        """Place of the data and entries of the next whole record, `None` after the last one."""
        start = self._end
        header = os.pread(self._read, _HEADER, start)
        if len(header) < _HEADER:
            return None
        mark, about_size, data_size, digest = _SIZES.unpack(header[:-4])
        if mark != _MARK or header[-4:] != struct.pack("<I", zlib.crc32(header[:-4])):
            if self._only_zeros(start):  # a file system made room, but did not come to write
                return None
            raise self._damaged()
        begin = start + _HEADER
        end = begin + about_size + data_size
        if end > self._size:
            return None
        if self._digest_to(begin, end) != digest:
            if end == self._size:
                return None
            raise self._damaged()
        if about_size > files.MAX_JSON_BYTES:
            raise ValueError("entries that are too long")
        about = json.loads(os.pread(self._read, about_size, begin))
        sizes = [int(entry["bytes"]) for entry in about]
        if not isinstance(about, list) or sum(sizes) != data_size or min(sizes, default=0) < 0:
            raise ValueError("entries that do not fit their record")
        self._end, self._digest = end, digest
        return begin + about_size, about

    def _digest_to(self, begin, end):
        digest = hashlib.sha256(self._digest)
        for chunk in self._chunks(begin, end):
            digest.update(chunk)
        return digest.digest()

    def _only_zeros(self, start):
        return not any(any(chunk) for chunk in self._chunks(start, self._size))

    def _chunks(self, begin, end):
        while begin < end and (chunk := os.pread(self._read, min(_CHUNK, end - begin), begin)):
            begin += len(chunk)
            yield chunk

    def _damaged(self):
        return InputError(
            f"`state` {self.path} is damaged: its checksum is wrong; remove it to start anew."
        )
