"""A graph function over a whole data set, compiled once."""

import functools

import numpy as np
import tensorflow as tf

from soar_tf.datasets.images import floats
from soar_tf.evaluation import robustness
from soar_tf.ops import random
from soar_tf.validation import check_integer, check_seed


class PerExample:
    """Runs a per-example graph function over arrays, batch by batch, in one compiled graph.

    The graph is traced in the first call, for each shape of images, and takes any batch size; a
    network inside it may change its weights between calls.

    Args:
        function: Graph function `(x [B, ...], y [B], keys uint32 [B, 2])` to a tensor `[B, ...]` or
            a dictionary of them; row i may depend on example i alone.
        seed: Seed of the examples' noise keys: equal in every call.
        purpose: What the noise is for, see `soar_tf.ops.random.example_keys`.
        batch_size: Examples worked on together.

    Example:

    >>> import numpy as np
    >>> from soar_tf.evaluation import PerExample
    >>> mean = PerExample(lambda x, y, keys: {"sum": x[:, 0] + x[:, 1]}, batch_size=2)
    >>> mean(np.ones((3, 2)), np.zeros(3))["sum"]
    array([2., 2., 2.], dtype=float32)
    """

    def __init__(self, function, *, seed=0, purpose="", batch_size=256):
        self.function = function
        self.seed = check_seed(seed)
        self.purpose = purpose
        self.batch_size = check_integer(batch_size, "batch_size", minimum=1)
        self._graphs = {}

    def __call__(self, x, y):
        """The function's values as NumPy arrays `[N, ...]`."""
        x, y = floats(x), np.asarray(y)
        graph = self._compiled(x.shape[1:])
        parts = []
        for start in range(0, len(x), self.batch_size):
            rows = slice(start, min(start + self.batch_size, len(x)))
            keys = random.example_keys(
                self.seed, tf.range(rows.start, rows.stop), purpose=self.purpose
            )
            parts.append(graph(tf.constant(x[rows]), tf.constant(y[rows], tf.int64), keys))
        return tf.nest.map_structure(lambda *values: np.concatenate(values), *parts)

    def _compiled(self, shape):
        if shape not in self._graphs:
            signature = robustness.batch_signature(shape)
            # TensorFlow counts traces by the function's code, and would warn of retracing where
            # several objects have a graph each; a `partial` counts for itself.
            own = functools.partial(self.function)
            self._graphs[shape] = tf.function(own, input_signature=signature, autograph=False)
        return self._graphs[shape]
