"""Each of two workers reads its own rows of every batch, and no others."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale_out import free_ports

ROOT = Path(__file__).parents[2]

WORKER = """
import json, os, sys
from soar_tf.cli.startup import load_tensorflow
load_tensorflow()
import keras, numpy as np, soar_tf
from soar_tf import datasets
from soar_tf.datasets import split
from soar_tf.runs import cluster
from soar_tf.runs.config import TrainConfig
from soar_tf.runs.experiment import Experiment
from soar_tf.training import strategies

split.MEMORY_BYTES = 0  # whatever is small is read batch by batch, too
rank, hosts, workdir, out, file = int(sys.argv[1]), *sys.argv[2:]
file = os.open(file, os.O_RDONLY)
log, read = [], {"train": 0, "validation": 0}

class Recorder:
    def __init__(self, name, rows):
        self.name, self.rows = name, rows
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, index):
        log.append((self.name, int(index)))
        content = os.pread(file, 64, 64 * int(self.rows[index]))
        read[self.name] += len(content)
        image = np.frombuffer(content, np.uint8).reshape(8, 8, 1)
        return image, int(self.rows[index] % 10)

def load(*_, **__):
    splits = {
        name: datasets.from_sequence(Recorder(name, rows), rows % 10)
        for name, rows in (("train", np.arange(70)), ("validation", np.arange(70, 100)))
    }
    return datasets.Dataset("recorded", 10, (8, 8, 1), splits)

datasets.load = load
strategy = None
if hosts != "none":
    strategy = strategies.make(cluster.read("multi-worker", hosts, rank), timeout=120)
experiment = Experiment(
    TrainConfig(method="adversarial", network="mlp", network_args={"width": 0.25}, epochs=1,
                batch_size=16, augment=True), strategy)
experiment.dataset.fingerprint()  # goes through all images of data that have no other identity
datasets.Dataset.fingerprint = lambda self: "known"
log.clear()
read.update(train=0, validation=0)
experiment.run(workdir, verbose=0)
weights = np.concatenate([w.ravel() for w in experiment.network.get_weights()])
np.savez(out, weights=weights, log=json.dumps(log), read=json.dumps(read))
"""


def run(folder, count):
    """What each of `count` workers did that read 100 images of 64 bytes from one file."""
    file = folder / "images"
    file.write_bytes(np.random.RandomState(0).randint(0, 256, 6400).astype("uint8").tobytes())
    ports = [f"127.0.0.1:{port}" for port in free_ports(count)]
    hosts = ",".join(ports) if count > 1 else "none"
    command = [sys.executable, "-c", WORKER]
    outs = [folder / f"{count}-{rank}.npz" for rank in range(count)]
    processes = [
        subprocess.Popen(
            [*command, str(rank), hosts, str(folder / f"run{count}"), str(out), str(file)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-3000:]
    return [dict(np.load(out)) for out in outs]


@pytest.mark.slow
def test_two_workers_read_half_of_the_rows_each_and_end_like_one(tmp_path):
    (one,), two = run(tmp_path, 1), run(tmp_path, 2)
    np.testing.assert_allclose(two[0]["weights"], one["weights"], atol=2e-5)
    np.testing.assert_array_equal(two[0]["weights"], two[1]["weights"])
    logs = [json.loads(str(result["log"])) for result in (one, *two)]
    # One epoch of 4 batches of 16 out of 70, and all 30 images of validation. A worker may read a
    # row more than once, before training, to look at the data.
    for name, rows in (("train", 64), ("validation", 30)):
        alone, *shared = ({row for part, row in log if part == name} for log in logs)
        assert [len(alone), *map(len, shared)] == [rows, rows // 2, rows // 2]
        assert shared[0].isdisjoint(shared[1])
        assert shared[0] | shared[1] == alone
    # Bytes: the epoch, and before it one look at a batch, which reads ahead as far as it finds
    # time, at most through the epoch once more. Validation is not looked at.
    read = [json.loads(str(result["read"])) for result in (one, *two)]
    for own, share in zip(read, (1, 2, 2), strict=True):
        assert 64 * 64 / share <= own["train"] <= 2 * 64 * 64 / share, read
        assert own["validation"] == 30 * 64 / share, read
