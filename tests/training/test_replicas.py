"""Several replicas and hosts give the result of one device on the same global batch."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale_out
from soar_tf import methods

ROOT = Path(__file__).parents[2]

DEVICES = """
import sys
sys.path.insert(0, {contract!r})
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * {count})
import keras, soar_tf, pytest
import test_methods as contract
from soar_tf.errors import InputError
strategy = tf.distribute.MirroredStrategy(["CPU:%d" % i for i in range({count})])
x, y = contract.data()

def train(scope, name="soar", batch=8, optimizer=lambda: keras.optimizers.SGD(0.05, momentum=0.9)):
    with scope.scope():
        model = soar_tf.RobustModel(contract.network(), contract.build(name), seed=7)
        model.compile(optimizer(), metrics=["accuracy"], jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)
    history = model.fit(data, epochs=2, verbose=0, validation_data=data).history
    return history, np.concatenate([w.ravel() for w in model.network.get_weights()])

def assert_same(*arguments):
    one, two = train(tf.distribute.get_strategy(), *arguments), train(strategy, *arguments)
    assert one[0].keys() == two[0].keys()
    for key in one[0]:
        np.testing.assert_allclose(two[0][key], one[0][key], rtol=1e-4, err_msg=key)
    np.testing.assert_allclose(two[1], one[1], atol=2e-5)
"""


def run_on_devices(code, count=2):
    prelude = DEVICES.format(contract=str(ROOT / "tests" / "contract"), count=count)
    result = subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow
def test_an_adaptive_weight_and_the_alignment_are_those_of_the_global_batch():
    # Batches of 5 and 3 examples: the replicas' means count by their examples.
    run_on_devices("""
from soar_tf import methods

def run(scope):
    method = methods.ELLE(0.3, lambda_=100, adaptive=True, decay=0.5, deviations=0)
    with scope.scope():
        model = soar_tf.RobustModel(contract.network(), method, seed=7)
        model.log_alignment()
        model.compile(keras.optimizers.SGD(0.05), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    logs = model.fit(data, epochs=6, verbose=0).history
    return logs, np.concatenate([w.ravel() for w in model.network.get_weights()])

one, two = run(tf.distribute.get_strategy()), run(strategy)
assert max(one[0]["lambda_"]) == 100 and one[0].keys() == two[0].keys()
for key in one[0]:
    np.testing.assert_allclose(two[0][key], one[0][key], rtol=1e-3, err_msg=key)
np.testing.assert_allclose(two[1], one[1], atol=2e-5)
""")


def test_clipping_is_of_the_global_gradient_and_uneven_batches_count_by_example():
    # Batches of 5 and 3: parts of 3 and 2, and of 3 and 0 or 2 and 1, as TensorFlow cuts them.
    run_on_devices("""
clipped = lambda: keras.optimizers.SGD(0.5, momentum=0.9, global_clipnorm=0.05)
assert_same("soar", 5, clipped)
""")


def test_coupled_weight_decay_counts_once():
    run_on_devices("""
from soar_tf.training import CoupledSGD
assert_same("soar", 8, lambda: CoupledSGD(0.05, momentum=0.9, coupled_weight_decay=0.1))
""")


def test_replicas_that_skip_clipped_examples_take_the_same_step():
    # Each replica gathers its own; BatchNorm and the share's memory are updated beside.
    run_on_devices("""
results = []
for skip in (False, "auto"):
    with strategy.scope():
        soar = soar_tf.methods.SOAR(0.1, norm_clip=0.2)
        network = contract.network(batchnorm=True)
        model = soar_tf.RobustModel(network, soar, seed=7, skip_clipped=skip)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    history = model.fit(data, epochs=2, verbose=0, validation_data=data).history
    results.append((history, np.concatenate([w.ravel() for w in network.get_weights()])))
    assert model.skips_clipped is (skip == "auto")
whole, skips = results
assert 0.0 < whole[0]["unclipped"][0] < 1.0, whole[0]
assert set(whole[0]) == {"loss", "penalty", "unclipped", "curvature_norm", "val_loss"}
for key in whole[0]:
    np.testing.assert_allclose(skips[0][key], whole[0][key], rtol=1e-4, err_msg=key)
np.testing.assert_allclose(skips[1], whole[1], atol=2e-5)
""")


def test_what_several_replicas_refuse():
    run_on_devices("""
def refused(message, network=strategy, optimizer=strategy, accumulate=None, **arguments):
    with network.scope():
        net = contract.network()
    with optimizer.scope():
        sgd = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulate)
    with pytest.raises(InputError, match=message):
        with strategy.scope():
            soar_tf.RobustModel(net, "standard").compile(sgd, **arguments)

one = tf.distribute.get_strategy()
refused("`gradient_accumulation_steps` does not work", accumulate=2)
refused("`jit_compile` must be False or 'auto'", jit_compile=True)
refused("`network` and the model must be created inside", network=one)
refused("`optimizer` and the model must be created inside", optimizer=one)
with strategy.scope():
    model = soar_tf.RobustModel(contract.network(), "standard")
with pytest.raises(InputError, match="`optimizer` and the model"):
    model.compile(keras.optimizers.SGD(0.1))
model.compile("sgd")  # made in the scope by itself
with strategy.scope(), pytest.raises(InputError, match="couples the examples.*replicas=2"):
    soar_tf.SOARModel(contract.network(), norm_clip_scope="batch")
with pytest.raises(InputError, match="at least one example of every batch"):
    model.fit(tf.data.Dataset.from_tensor_slices((x[:5], y[:5])).batch(4), verbose=0)
""")


def test_evaluation_gives_every_example_the_same_result_on_two_devices():
    run_on_devices("""
attacks = ["fgsm:epsilon=0.1", "pgd:steps=3,epsilon=0.1", "apgd:steps=5,epsilon=0.1"]
results = []
for scope in (tf.distribute.get_strategy(), strategy):
    with scope.scope():
        # 7 of 8 images in batches of 3: parts of unequal size, and in the end an empty one.
        results.append(soar_tf.evaluate(contract.network(), x[:7], y[:7], attacks, batch_size=3))
one, two = results
np.testing.assert_array_equal(one.clean, two.clean)
for first, second in zip(one.attacks, two.attacks, strict=True):
    np.testing.assert_array_equal(first.robust, second.robust)

from soar_tf.evaluation import parts
from soar_tf.ops import random
adversarial = []
for scope in (tf.distribute.get_strategy(), strategy):
    with scope.scope():
        attack = soar_tf.attacks.get("pgd:steps=3,epsilon=0.1")
        graph = parts.search_graph(attack, contract.network(), x.shape[1:])
        keys = random.example_keys(0, tf.range(7), purpose="attack")
        adversarial.append(graph(tf.constant(x[:7]), tf.constant(y[:7]), keys).numpy())
np.testing.assert_array_equal(*adversarial)
""")


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.ALL_OBJECTS)
def test_every_method_on_three_devices_with_uneven_batches(name):
    run_on_devices(f"assert_same({name!r}, 8)\nassert_same({name!r}, 5)", count=3)


HOSTS = """
import json, os, sys
import numpy as np, tensorflow as tf
from soar_tf.runs import cluster
from soar_tf.training import strategies
rank, hosts, names = int(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
strategy = None
if hosts != "none":
    strategy = strategies.make(cluster.read("multi-worker", hosts, rank), timeout=100)
    assert strategies.gather(strategy, b"x" * rank) == [b"x" * k for k in range(hosts.count(":"))]
    assert strategies.from_chief(strategy, b"chief" if rank == 0 else b"") == b"chief"
import keras, soar_tf
sys.path.insert(0, sys.argv[4])
import test_methods as contract
digits = soar_tf.datasets.load("digits")
for name in names:
    keras.utils.set_random_seed(1)
    split = digits["train"].take(24)
    train, steps = soar_tf.datasets.training_pipeline(split, 12, seed=0, epochs=2)
    with strategies.scope(strategy):
        network = soar_tf.networks.mlp((8, 8, 1), 10, width=0.1)
        model = soar_tf.RobustModel(network, contract.build(name), seed=7)
        model.compile(keras.optimizers.SGD(0.05, global_clipnorm=1.0), metrics=["accuracy"])
    validation = soar_tf.datasets.evaluation_pipeline(digits["validation"].take(20), 12)
    history = model.fit(train, epochs=2, steps_per_epoch=steps, validation_data=validation,
                        verbose=0).history
    weights = np.concatenate([w.ravel() for w in network.get_weights()]).tolist()
    print("RESULT", json.dumps([history, weights]), flush=True)
"""


def run_on_hosts(count, names):
    """Every process's results, one a method."""
    ports = scale_out.free_ports(count) if count > 1 else []
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports) or "none"
    contract = str(ROOT / "tests" / "contract")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOSTS, str(rank), hosts, ",".join(names), contract],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for rank in range(count)
    ]
    try:
        # All at once: a process whose full pipe nobody reads would keep the others waiting.
        with ThreadPoolExecutor(count) as pool:
            outputs = list(pool.map(lambda process: process.communicate(timeout=900), processes))
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    prefix = "RESULT "
    return [
        [json.loads(line[len(prefix) :]) for line in out.splitlines() if line.startswith(prefix)]
        for out, _ in outputs
    ]


def assert_hosts_equal_one_process(count, names):
    expected = run_on_hosts(1, names)[0]
    assert len(expected) == len(names)
    for results in run_on_hosts(count, names):
        for name, got, wanted in zip(names, results, expected, strict=True):
            assert got[0].keys() == wanted[0].keys()
            for key in wanted[0]:
                np.testing.assert_allclose(got[0][key], wanted[0][key], rtol=1e-3, err_msg=name)
            np.testing.assert_allclose(got[1], wanted[1], atol=2e-5, err_msg=name)


def test_two_processes_equal_one():
    assert_hosts_equal_one_process(2, ["soar"])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_every_method_in_several_processes(count):
    assert_hosts_equal_one_process(count, list(methods.ALL_OBJECTS))


@pytest.mark.slow
def test_a_killed_process_returns_and_the_run_ends_with_the_same_weights(tmp_path):
    report = tmp_path / "report.json"
    script = ROOT / "benchmarks" / "scale_out.py"
    subprocess.run([sys.executable, script, "--output", report, "--kill", "1", "0"], check=True)
    result = json.loads(report.read_text())
    assert result["distribution"] == {"strategy": "multi-worker", "replicas": 2, "hosts": 2}
    assert result["relative_distance_to_one_process"] < 1e-4
    for killed in result["killed_with_sigkill_and_restarted"].values():
        assert killed["status"] == "complete" and killed["resumes"] >= 1
        assert killed["relative_distance_to_unbroken_run"] < 1e-4
