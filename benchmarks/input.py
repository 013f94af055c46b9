"""The input alone, the time that train steps wait for it, and peak memory against the set's size.

    python -m benchmarks.input

JPEG files of smooth noise are written once; the same pixels go into an npz file and into records of
TensorFlow Datasets. Each source is read in a process of its own, beside Keras's loader, plain
tf.data and, where it is installed, grain; the processes take turns, epoch by epoch. Larger folders,
for the memory, are hard links to the same files. `python -m benchmarks.report` writes the figures
into the documents.
"""

import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks import common, input_files, input_tables
from benchmarks.input_worker import BATCH, PEERS

OURS = ("memory", "npz", "folder", "tfrecord", "array_record")
WAITING = ("memory", "folder", "tfrecord", "array_record", "keras", "tf.data")


def parse(arguments=None):
    """Reads the command line."""
    parser = common.parser(__doc__.splitlines()[0], "input")
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 160, 224])
    parser.add_argument("--count", type=int, default=2000, help="images for the speed")
    parser.add_argument(
        "--folders",
        type=int,
        nargs="*",
        default=[1000, 10000, 100000],
        help="sizes of the folders for the memory",
    )
    parser.add_argument("--width", type=float, default=1.0, help="of the network cnn4")
    parser.add_argument(
        "--only", nargs="+", choices=("speed", "waiting", "memory"), help="parts to measure anew"
    )
    parser.add_argument("--note", default="", help="what else the machine did, for the page")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measures everything, prints the tables, writes the figures."""
    options = parse(arguments)
    known = pathlib.Path(options.json)
    figures = {"machine": common.machine(), "batch_size": BATCH, "count": options.count}
    figures |= {"speed": {}, "waiting": {}, "memory": {}, "note": options.note}
    words = [word for word in sys.argv[1:] if word != options.note and word != "--note"]
    figures["command"] = " ".join(["python -m benchmarks.input", *words])
    if options.only and known.is_file():
        known = json.loads(known.read_text(encoding="utf-8"))
        figures |= {part: known[part] for part in ("speed", "waiting", "memory")}
    parts = options.only or ("speed", "waiting", "memory")
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        for side in options.sides:
            input_files.prepare(root / str(side), options.count, side)
        if {"speed", "waiting"} & set(parts):
            readers(options, root, figures, parts)
        if "memory" in parts:
            side = 160 if 160 in options.sides else options.sides[-1]
            figures["memory"] = memory(root, side, options.folders, options.width)
            common.write(options.json, figures)
    print(input_tables.table(figures))


def readers(options, root, figures, parts):
    """Measures speed and waiting: one process for each source, of which one runs at a time."""
    names = [*OURS, *(p for p in PEERS if p != "grain" or importlib.util.find_spec("grain"))]
    arguments = ("--width", options.width)
    peers = {
        name: common.Peer(
            sys.executable, "input_worker", "input", name, root, *options.sides, *arguments
        )
        for name in names
    }

    def ask(name, question):
        return peers[name].alone(question)

    try:
        for side in options.sides:
            if "speed" in parts:
                figures["speed"][str(side)] = speed(ask, names, side, options.repeats)
                common.write(options.json, figures)
        for side in options.sides:
            if "waiting" in parts:
                figures["waiting"][str(side)] = {
                    name: ask(name, f"waiting {side}") for name in WAITING
                }
                common.write(options.json, figures)
    finally:
        for peer in peers.values():
            peer.close()


def speed(ask, names, side, repeats):
    """Images per second of every source, by the median of epochs in turn; the first is not used."""
    seen = {name: [] for name in names}
    for _ in range(repeats + 1):
        for name in names:
            seen[name].append(ask(name, f"epoch {side}"))
    return {
        name: {
            "images_per_second": statistics.median(
                epoch["images"] / epoch["seconds"] for epoch in epochs[1:]
            ),
            "cpu_microseconds": 1e6
            * statistics.median(epoch["cpu"] / epoch["images"] for epoch in epochs[1:]),
        }
        for name, epochs in seen.items()
    }


def memory(root, side, counts, width):
    """Peak memory of the input, of training and of an evaluation, by the number of images."""
    found = {"side": side, "folders": {}}
    found["digits"] = {kind: once(kind, "digits", root, 0, width) for kind in ("train", "evaluate")}
    for count in counts:
        place = root / f"links{count}"
        size = input_files.linked(root / str(side) / "folder", place / "folder", count)
        kinds = {"some": "input", "train": "train", "evaluate": "evaluate"}
        found["folders"][str(count)] = {"bytes": size} | {
            name: once(kind, "folder", place, side, width) for kind, name in kinds.items()
        }
    return found


def once(kind, source, folder, side, width):
    """What a worker process prints."""
    os.environ["SOAR_TF_CACHE"] = str(folder / "cache")
    command = [sys.executable, "-m", "benchmarks.input_worker", kind, source, folder, side]
    done = subprocess.run(
        [*map(str, command), "--width", str(width)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=common.ROOT,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
