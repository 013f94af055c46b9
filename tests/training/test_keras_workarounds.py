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


def run(code):
    command = [sys.executable, "-c", PRELUDE + code]
    result = subprocess.run(command, capture_output=True, text=True)
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
assert apart > 1e-4, "Keras clips the global gradient: remove `sum_gradients_outside`"

with strategy.scope():
    trained = model()
try:
    trained.fit(data(5), verbose=0)
except Exception as error:
    assert "same size and shape" in str(error), error
else:
    raise SystemExit("Keras builds on uneven parts: remove `before_epochs`")
"""
    )


def test_keras_still_cannot_train_on_several_hosts():
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    code = """
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    trained = model()
try:
    trained.fit(data(4), verbose=0)
except Exception as error:
    assert "Invalid reduction dimension 0" in str(error) or "PerReplica" in str(error), error
else:
    raise SystemExit("Keras trains on several hosts: remove `_reducible` from replicas.py")
"""
    processes = []
    for rank in range(2):
        task = {"type": "worker", "index": rank}
        config = json.dumps({"cluster": {"worker": hosts}, "task": task})
        environment = {**os.environ, "TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", PRELUDE + code]
        processes.append(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        )
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
