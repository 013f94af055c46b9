"""The processes of `benchmarks.input`: `python -m benchmarks.input_worker KIND SOURCE FOLDER SIDE`.

Each reads one source. `input` reads epochs on demand, in turn with the other sources, of several
sides one after the other; `some`, `train` and `evaluate` print one answer, so that their peak
memory is their own.
"""

import argparse
import functools
import json
import os
import pathlib
import tempfile
import time

from benchmarks import common

BATCH = 64
PEERS = ("keras", "tf.data", "grain")
BATCHES, PIXELS = 32, 2**23  # of a turn, at least: many more than are read ahead
LEAST_STEPS, SECONDS = 5, 20.0  # of the steps that are timed, of either kind


def main():
    """Reads the command line and answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("input", "some", "train", "evaluate"))
    parser.add_argument("source")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("side", type=int, nargs="+")
    parser.add_argument("--width", type=float, default=1.0, help="of the network")
    options = parser.parse_args()
    from soar_tf.cli.startup import load_tensorflow

    load_tensorflow()
    import tensorflow as tf

    tf.zeros(1).numpy()
    if options.kind == "input":
        common.serve(functions(options), {}, stops=True)
        return
    measured = {"some": some, "train": train, "evaluate": evaluate}[options.kind]
    print(json.dumps(measured(options)))


def functions(options):
    """What an `input` process is asked for: epochs, and the wait of train steps, of each side.

    The files of a side are in a folder of its name.
    """
    readers = {}

    def epoch(side):
        if side not in readers:
            readers.clear()  # the last side's stops reading ahead
            os.environ["SOAR_TF_CACHE"] = str(options.folder / "cache" / options.source)
            readers[side] = Reader(options.source, options.folder / str(side), side)
        return readers[side].epoch()

    def steps(side):
        readers.clear()
        return waiting(options.source, options.folder / str(side), side, options.width)

    return {
        f"{name} {side}": functools.partial(function, side)
        for name, function in (("epoch", epoch), ("waiting", steps))
        for side in options.side
    }


def some(options):
    """What a process needs for the first 50 batches at most."""
    reader = Reader(options.source, options.folder, options.side[0])
    return reader.read(min(reader.steps, 50))


class Reader:
    """Endless epochs of batches of a source.

    Args:
        source: A source's name.
        folder: See `benchmarks.input_files.prepare`.
        side: Height and width in pixels.
    """

    def __init__(self, source, folder, side):
        self.begun, self.base = time.perf_counter(), peak()
        self.turn = max(BATCHES, PIXELS // (BATCH * side**2))
        self.batches = batches_of(source, folder, side)
        self.steps, self.first = next(self.batches), None

    def epoch(self):
        """Reads the batches of a turn: seconds, images, what there is about the process so far."""
        return self.read(self.turn)

    def read(self, steps):
        """The same of so many batches."""
        watch = common.Stopwatch()
        for _ in range(steps):
            x = self._next()
        float(x[0, 0, 0, 0])
        spent = watch.read()
        return {
            "seconds": spent["wall"],
            "cpu": spent["cpu"],
            "images": steps * BATCH,
            "start_seconds": self.first,
            "peak_above_import_mib": peak() - self.base,
        }

    def _next(self):
        x, _ = next(self.batches)
        self.first = self.first or time.perf_counter() - self.begun
        return x


def waiting(source, folder, side, width):
    """The share of `cnn4`'s standard train steps spent waiting for the next batch.

    Beside it, by how much a step is slower than on one batch that is there already: reading takes
    processor time from the step, too. Both kinds of step take turns, one by one.
    """
    import keras

    import soar_tf

    keras.utils.set_random_seed(0)
    shape = (side, side, 3)
    network = soar_tf.networks.get("cnn4", input_shape=shape, num_classes=10, width=width)
    model = soar_tf.RobustModel(network, "standard")
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), jit_compile=False)
    batches = batches_of(source, folder, side)
    next(batches)
    fixed = next(batches)
    spent = {"waiting": [], "step": [], "fixed": []}

    def step(batch, kind):
        begun = time.perf_counter()
        model.train_on_batch(*batch)
        spent[kind].append(time.perf_counter() - begun)

    for _ in range(2):  # compiles
        step(fixed, "fixed")
    spent["fixed"].clear()
    begun = time.perf_counter()
    while len(spent["step"]) < LEAST_STEPS or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        batch = next(batches)
        spent["waiting"].append(time.perf_counter() - start)
        step(batch, "step")
    while len(spent["fixed"]) < len(spent["step"]):
        step(fixed, "fixed")
    total = {kind: sum(values) for kind, values in spent.items()}
    whole = total["waiting"] + total["step"]
    return {
        "steps": len(spent["step"]),
        "step_seconds": whole / len(spent["step"]),
        "waiting": total["waiting"] / whole,
        "slower_than_fixed": whole / total["fixed"] - 1,
    }


def train(options):
    """Peak memory of a few steps of adversarial training, cropped to 32 pixels."""
    import keras

    import soar_tf

    split, base = training_split(options), peak()
    model = soar_tf.RobustModel(network_for(split, options.width), "adversarial")
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    pipeline, steps = soar_tf.datasets.training_pipeline(
        split, BATCH, seed=0, epochs=1, augment=True
    )
    model.fit(pipeline, epochs=1, steps_per_epoch=min(steps, 8), verbose=0)
    return {"images": len(split), "peak_mib": peak(), "peak_above_import_mib": peak() - base}


def evaluate(options):
    """Peak memory of FGSM on all images, of which every adversarial one is kept."""
    import keras

    import soar_tf

    split, base = training_split(options), peak()
    keras.utils.set_random_seed(0)
    network = network_for(split, options.width)
    with tempfile.TemporaryDirectory() as folder:
        found = soar_tf.evaluate(
            network,
            split,
            attacks=["fgsm:epsilon=8/255"],
            state=pathlib.Path(folder, "evaluation.state"),
            keep=len(split),
        )
        kept = len(found.kept)
    above = peak() - base
    return {"images": len(split), "kept": kept, "peak_mib": peak(), "peak_above_import_mib": above}


def training_split(options):
    """The digits, or the folder's training images, cropped to 32 pixels."""
    from soar_tf import datasets

    if options.source == "digits":
        return datasets.load("digits")["train"]
    name = f"folder:{options.folder / 'folder'}"
    return datasets.load(name, splits=("train",), validation_images=0, resize_crop=32)["train"]


def network_for(split, width):
    """A `cnn4` for a split's images; padded, since the digits have 8 pixels."""
    import soar_tf

    shape = tuple(split.image_shape)
    arguments = {"num_classes": 10, "width": width, "padding": "same"}
    return soar_tf.networks.get("cnn4", input_shape=shape, **arguments)


def batches_of(source, folder, side):
    """Yields the number of steps of an epoch, then batches without end."""
    yield from peer(source, folder, side) if source in PEERS else ours(source, folder)


def ours(source, folder):
    """The package's pipeline."""
    from soar_tf import datasets

    arrays = f"npz:{folder / 'set.npz'}"
    names = {"folder": f"folder:{folder / 'folder'}", "npz": arrays, "memory": arrays}
    name = names.get(source, "tfds:benchmark_pictures")
    limit = 2**40 if source == "memory" else 0
    data = datasets.load(name, data_dir=folder / source, validation_images=0, memory_limit=limit)
    pipeline, steps = datasets.training_pipeline(
        data["train"], BATCH, seed=0, epochs=10**6, memory_limit=limit
    )
    yield steps
    yield from pipeline


def peer(source, folder, side):
    """The same of other loaders: shuffled, batched, in [0, 1]."""
    import tensorflow as tf

    files = folder / "folder" / "train"
    if source == "grain":
        yield from by_grain(files)
        return
    paths, labels = listed(files)
    count = len(paths) // BATCH
    if source == "keras":
        import keras

        made = keras.utils.image_dataset_from_directory(
            files, batch_size=BATCH, image_size=(side, side), seed=0, verbose=False
        )
        made = made.take(count)  # the last one is smaller
    else:

        def decode(path, label):
            image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
            return tf.ensure_shape(image, (side, side, 3)), label

        made = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths), 0)
        made = made.map(decode, tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    made = made.map(lambda x, y: (tf.cast(x, tf.float32) / 255.0, y), tf.data.AUTOTUNE)
    yield count
    yield from made.prefetch(tf.data.AUTOTUNE).repeat()


def by_grain(files):
    """Grain with a source that Pillow decodes, in 8 threads."""
    import grain
    import numpy as np
    from PIL import Image

    paths, labels = listed(files)

    class Source:
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            with Image.open(paths[index]) as image:
                return np.asarray(image, np.float32) / np.float32(255), labels[index]

    made = grain.MapDataset.source(Source()).shuffle(seed=0).repeat()
    yield len(paths) // BATCH
    yield from made.to_iter_dataset(grain.ReadOptions(num_threads=8)).batch(BATCH)


def listed(files):
    """The JPEG files of a folder, as texts, and their labels."""
    paths = sorted(map(str, files.rglob("*.jpg")))
    return paths, [int(pathlib.Path(path).parent.name[-1]) for path in paths]


def peak():
    """The process's largest resident set so far, in MiB.

    Not `getrusage`'s, which begins at that of the process that started this one.
    """
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
