"""Adversarial images that an evaluation keeps: in memory, or in its state's file."""

import math
from collections.abc import Mapping

import numpy as np

MEMORY_BYTES = 64 * 2**20
"""Images that wait to be written take at most about so many bytes."""


class Chosen(Mapping):
    """Some entries of other mappings, which are asked each time.

    Args:
        positions: Their keys, in order.
        others: The mappings.
    """

    def __init__(self, positions, others):
        self._owners = {position: other for other in others for position in other}
        self._owners = {position: self._owners[position] for position in positions}

    def __getitem__(self, position):
        return self._owners[position][position]

    def __iter__(self):
        return iter(self._owners)

    def __len__(self):
        return len(self._owners)


class Kept(Mapping):
    """Maps positions of examples to their adversarial images, in the order they were found.

    Images of a state with a file are read from it each time; the others are in memory.

    Example:

    >>> import numpy as np
    >>> from soar_tf.evaluation.kept import Kept
    >>> kept = Kept()
    >>> kept.add(7, np.zeros((2, 2, 1), "float32"))
    >>> list(kept), kept[7].shape, kept.nbytes
    ([7], (2, 2, 1), 16)
    """

    def __init__(self, places=None, nbytes=0):
        self._places = places or {}  # an image, or (log, place, dtype, shape)
        self._waiting, self.nbytes, self.waiting_bytes = [], nbytes, 0

    def __getitem__(self, position):
        place = self._places[position]
        if isinstance(place, np.ndarray):
            return place
        log, *where = place
        return log.array(*where)

    def __iter__(self):
        return iter(self._places)

    def __len__(self):
        return len(self._places)

    def add(self, position, image):
        """Keeps an image, float32 `[...]`; it waits in memory until it is written."""
        self._places[position] = image
        self._waiting.append(position)
        self.nbytes += image.nbytes
        self.waiting_bytes += image.nbytes

    @property
    def waiting(self):
        """The positions whose images wait to be written."""
        return list(self._waiting)

    def parts(self):
        """All positions, in lists whose images take about 64 MiB at most."""
        positions = list(self._places)
        step = max(1, MEMORY_BYTES * len(self) // max(1, self.nbytes))
        return [positions[start : start + step] for start in range(0, len(positions), step)]

    def record(self, positions):
        """An entry and its data for the file, see `state_log.StateLog.append`."""
        images = np.stack([self[position] for position in positions])
        entry = {"kind": "images", "positions": positions, "dtype": images.dtype.str}
        return {**entry, "shape": list(images.shape[1:])}, images

    def written(self, log, entry, place):
        """Notes that an entry's images are in a file, at this place.

        Raises:
            ValueError, KeyError, ...: If it is not of the form that `record` makes.
        """
        dtype, shape = np.dtype(entry["dtype"]), tuple(int(side) for side in entry["shape"])
        positions = [int(position) for position in entry["positions"]]
        size = dtype.itemsize * math.prod(shape)
        if (
            dtype != np.float32
            or min(shape, default=1) < 0
            or size * len(positions) != entry["bytes"]
        ):
            raise ValueError("images of another form")
        for number, position in enumerate(positions):
            self.nbytes += 0 if position in self._places else size
            self._places[position] = (log, place + number * size, dtype, shape)
        written = set(positions)
        self._waiting = [position for position in self._waiting if position not in written]
        self.waiting_bytes = size * len(self._waiting)

    def check(self, shape, positions):
        """Refuses images of another form, which are no adversarial images of these positions.

        Args:
            shape: The images' shape.
            positions: Set of the positions that an attack broke.

        Raises:
            ValueError: With what they are.
        """
        if not self._places.keys() <= positions:
            raise ValueError("adversarial images of examples that no attack broke")
        for place in self._places.values():
            found = place.shape if isinstance(place, np.ndarray) else place[-1]
            if tuple(found) != tuple(shape):
                raise ValueError(f"images of shape {tuple(found)} instead of {tuple(shape)}")
        for image in self.values():
            if not (image.min(initial=0.0) >= 0.0 and image.max(initial=0.0) <= 1.0):
                raise ValueError("images with pixels outside [0, 1]")

    def of(self, positions):
        """The images at some positions: a state may hold those of attacks that are not asked for.

        Args:
            positions: Collection of ints.

        Returns:
            A mapping, see `in_memory`.
        """
        wanted = set(positions)
        places = {row: place for row, place in self._places.items() if row in wanted}
        return Kept(places, self.nbytes * len(places) // max(1, len(self))).in_memory()

    def in_memory(self):
        """A dictionary if the images take at most 64 MiB, else this object."""
        return dict(self) if self.nbytes <= MEMORY_BYTES else self
