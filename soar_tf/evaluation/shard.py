"""A part of an evaluation's images that one process attacks, for other processes to do the rest."""

import dataclasses
import re

import numpy as np

from soar_tf.errors import InputError
from soar_tf.evaluation.state import fingerprint

_FORM = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Every `count`-th image, beginning with the one at position `index - 1`.

    An image's noise is keyed by its position in the whole set, so every shard finds what a single
    process would find. Neighbours go to different shards: of data sorted by class, each gets some
    of every class.

    Args:
        index: Which shard it is, from 1 to `count`.
        count: Number of shards.

    Attributes:
        total: Number of images of all shards; `None` until `bind` is called.
        belongs: What all shards of one evaluation have in common: names to JSON values.

    Raises:
        InputError: For an index outside 1 to `count`.

    Example:

    >>> from soar_tf.evaluation import Shard
    >>> shard = Shard.parse("2/3")
    >>> str(shard), shard.positions(7).tolist()
    ('2/3', [1, 4])
    """

    index: int
    count: int
    total: int | None = None
    belongs: dict = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if not 1 <= self.index <= self.count:
            raise InputError(
                f"`shard` must be K/N with K from 1 to N. Received: {self.index}/{self.count}."
            )

    def __str__(self):
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, value):
        """A `Shard` from a text such as `"3/8"`; a `Shard` is returned as it is.

        Raises:
            InputError: If it is neither.
        """
        if isinstance(value, cls):
            return value
        match = _FORM.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise InputError(f"`shard` must be K/N, such as 3/8. Received: {value!r}.")
        return cls(int(match[1]), int(match[2]))

    def positions(self, total=None):
        """The images of the shard as int64 positions in the whole set, ascending.

        Args:
            total: Number of images of the whole set; `None` takes the attribute.
        """
        total = self.total if total is None else total
        return np.arange(self.index - 1, total, self.count)

    def bind(self, network, x, y, **belongs):
        """The same shard of an evaluation of these images.

        Args:
            network: The network; its weights' fingerprint tells it from others.
            x: float32 `[N, ...]`, all images.
            y: int `[N]`, all labels.
            **belongs: Further JSON values that all shards must share.

        Returns:
            A `Shard` with `total` and `belongs`.

        Raises:
            InputError: If there are fewer images than shards.
        """
        if len(x) < self.count:
            raise InputError(
                f"`shard` must have at most as many shards as there are images, {len(x)}. "
                f"Received: {self}."
            )
        weights = network.get_weights() if hasattr(network, "get_weights") else None
        common = {
            "number of images": len(x),
            "images": fingerprint(x),
            "labels": fingerprint(y.astype(np.int64)),
            "network": fingerprint(*weights) if weights else "a function",
            **belongs,
        }
        return dataclasses.replace(self, total=len(x), belongs=common)
