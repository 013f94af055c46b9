"""PerExample: whole arrays through one graph, whatever the batches."""

import numpy as np
import tensorflow as tf

from soar_tf.evaluation import PerExample
from soar_tf.ops import random


def test_noise_and_values_do_not_depend_on_the_batches():
    traces = []

    def function(x, y, keys):
        traces.append(x)
        noise = random.uniform(keys, ())
        return {"value": x[:, 0] + tf.cast(y, tf.float32), "noise": noise}

    x, y = np.arange(14.0).reshape(7, 2), np.arange(7)
    whole = PerExample(function, seed=3, purpose="a")(x, y)
    parts = PerExample(function, seed=3, purpose="a", batch_size=3)
    first, second = parts(x, y), parts(x, y)
    assert len(traces) == 2  # one graph an object, also for the last batch of one
    np.testing.assert_array_equal(whole["value"], x[:, 0] + y)
    for values in (first, second):
        np.testing.assert_array_equal(values["value"], whole["value"])
        np.testing.assert_array_equal(values["noise"], whole["noise"])
    assert (PerExample(function, seed=4, purpose="a")(x, y)["noise"] != whole["noise"]).all()
    assert (PerExample(function, seed=3, purpose="b")(x, y)["noise"] != whole["noise"]).all()
