"""Stock Keras still fails where `soar_tf.training.replicas` works around it.

A failure here is good news: the workaround that it names can be removed.
"""

import json
import os
import socket
import subprocess
import sys

PRELUDE = """
import numpy as np, tensorflow as tf
import keras

def model(**arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0, **arguments), loss=loss)
    return model

x = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32")
y = np.arange(8) % 3

def data(batch):
    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch).with_options(options)
"""
MIRRORED = """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + code], capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]


def test_keras_still_clips_before_it_sums_and_averages_uneven_parts():
    run(
        MIRRORED
        + """
weights = []
for scope in (tf.distribute.get_strategy(), strategy):
    with scope.scope():
        trained = model(global_clipnorm=0.01)
    trained.fit(data(8), verbose=0)
    weights.append(np.concatenate([w.ravel() for w in trained.get_weights()]))
apart = np.abs(weights[0] - weights[1]).max()
assert apart > 1e-4, "Keras clips the global gradient: remove `_already_summed` from replicas.py"

with strategy.scope():
    trained = model()
try:
    trained.fit(data(5), verbose=0)
except Exception as error:
    assert "same size and shape" in str(error), error
else:
    raise SystemExit("Keras builds on uneven parts: remove `_maybe_symbolic_build`")
"""
    )


def test_keras_still_cannot_average_logs_over_hosts():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    task = {"type": "worker", "index": 0}
    config = {"cluster": {"worker": [f"127.0.0.1:{port}"]}, "task": task}
    run(
        """
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    trained = model()
try:
    trained.fit(data(4), verbose=0)
except Exception as error:
    assert "Invalid reduction dimension 0" in str(error) or "PerReplica" in str(error), error
else:
    raise SystemExit("Keras trains on several hosts: remove `_reducible` from replicas.py")
""",
        TF_CONFIG=json.dumps(config),
        TF_CPP_MIN_LOG_LEVEL="3",
    )
