"""Trains SOAR on digits in one process, in several, and in several of which one is killed.

python benchmarks/scale_out.py --output docs/results/scale_out.json

All three must end with the same weights within float32 rounding. The killed process is given its
command again; the other notices the loss and starts again by itself (`--restarts`).
"""

import argparse
import json
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# A smooth network and few steps: SOAR's finite difference jumps at the kinks of ReLU networks,
# which lets any difference of rounding grow, be it of replicas or of another machine.
SETTINGS = tuple(
    shlex.split(
        "--method soar --dataset digits --network smooth.keras --limit 256 "
        "--pretrain-epochs 1 --epochs 4 --batch-size 64 --verbose 2 --evaluate 0"
    )
)


def save_network(path):
    """The network that every run starts with."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(64, "softplus")]
    keras.Sequential([*layers, keras.layers.Dense(10)]).save(path)


def free_ports(count):
    """Ports of this machine that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(workdir, hosts=(), rank=0):
    """Starts `soar-tf train`, as one of several processes if there are hosts."""
    command = [sys.executable, "-m", "soar_tf.cli", "train", *SETTINGS, "--workdir", str(workdir)]
    if hosts:
        command += ["--strategy", "multi-worker", "--hosts", ",".join(hosts), "--rank", str(rank)]
        command += ["--restarts", "3", "--connect-timeout", "120"]
    log = open(f"{workdir}.rank{rank}.log", "ab")  # noqa: SIM115 (the process's own)
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=workdir.parent)


def wait(processes, workdir, seconds=400):
    """Waits until all have ended well."""
    end = time.monotonic() + seconds
    try:
        for rank, process in enumerate(processes):
            if process.wait(timeout=max(1, end - time.monotonic())) != 0:
                raise RuntimeError(Path(f"{workdir}.rank{rank}.log").read_text()[-3000:])
    finally:
        for process in processes:
            process.kill()


def train(folder, name, count, kill=None):
    """The weights after a run of `count` processes; `kill` is the rank of the one that is lost."""
    workdir = folder / name
    hosts = [f"127.0.0.1:{port}" for port in free_ports(count)] if count > 1 else []
    processes = [start(workdir, hosts, rank) for rank in range(count)]
    if kill is not None:
        checkpoints = workdir / "checkpoints"
        end = time.monotonic() + 200
        while not list(checkpoints.glob("001-000002*")) and time.monotonic() < end:
            time.sleep(0.1)
        processes[kill].send_signal(signal.SIGKILL)
        processes[kill].wait()
        processes[kill] = start(workdir, hosts, kill)
    wait(processes, workdir)
    import keras

    weights = keras.saving.load_model(workdir / "model.keras", compile=False).get_weights()
    return weights, json.loads((workdir / "manifest.json").read_text())


def apart(weights, others):
    """Distance of two sets of weights over the length of the first, both as one vector."""
    import numpy as np

    flat = [np.concatenate([w.ravel() for w in each]) for each in (weights, others)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[0]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kill", type=int, nargs="*", default=[1], help="ranks to kill")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_network(folder / "smooth.keras")
        one, _ = train(folder, "one", 1)
        several, manifest = train(folder, "several", arguments.processes)
        killed = {}
        for rank in arguments.kill:
            weights, again = train(folder, f"killed{rank}", arguments.processes, kill=rank)
            killed[f"rank {rank}"] = {
                "relative_distance_to_unbroken_run": apart(several, weights),
                "bitwise_equal": all((a == b).all() for a, b in zip(several, weights, strict=True)),
                "resumes": again["resumes"],
                "status": again["status"],
            }
    result = {
        "command": f"soar-tf train {' '.join(SETTINGS)}",
        "distribution": manifest["distribution"],
        "relative_distance_to_one_process": apart(one, several),
        "killed_with_sigkill_and_restarted": killed,
        "versions": manifest["versions"],
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
