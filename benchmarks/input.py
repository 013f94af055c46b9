"""The input alone: images per second and peak memory of every source, beside Keras's loader.

    python -m benchmarks.input --sides 32 160 --count 2000 --folders 1000 10000

JPEG files of smooth noise are written once; the same pixels go into an npz file and into records of
TensorFlow Datasets. Each source is read in a process of its own, so that its peak memory is its
own: one epoch to warm up, then `--repeats` epochs, of which the median counts. Larger folders, for
the memory, are hard links to the same files.
"""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks import common

OURS = ("memory", "npz", "folder", "tfrecord", "array_record")
PEERS = ("keras", "tf.data")
CLASSES, DISTINCT, BATCH = 10, 200, 64


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
    parser.add_argument("--worker", nargs=3, metavar=("SOURCE", "FOLDER", "SIDE"))
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measures everything, prints the tables, writes the figures."""
    options = parse(arguments)
    if options.worker:
        source, folder, side = options.worker
        print(json.dumps(worker(source, pathlib.Path(folder), int(side), options.repeats)))
        return
    figures = {"machine": common.machine(), "batch_size": BATCH, "count": options.count}
    figures |= {"speed": {}, "memory": {}}
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        for side in options.sides:
            prepare(root / str(side), options.count, side)
            figures["speed"][side] = {
                source: measured(source, root / str(side), side, options.repeats)
                for source in (*OURS, *PEERS)
            }
        side = 160 if 160 in options.sides else options.sides[-1]
        for count in options.folders:
            linked(root / str(side) / "folder", root / f"links{count}" / "folder", count)
            figures["memory"][count] = measured("folder", root / f"links{count}", side, 0)
    print(table(figures))
    common.write(options.json, figures)


def prepare(root, count, side):
    """Writes the JPEG files of a side, and their pixels as an npz file and as records."""
    import tensorflow as tf

    random = np.random.RandomState(side)
    for number in range(count):
        place = root / "folder" / "train" / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        if number < DISTINCT:
            small = random.uniform(0, 255, (1, 12, 12, 3))
            image = tf.cast(tf.image.resize(small, (side, side), "bicubic"), tf.uint8)[0]
            content = tf.io.encode_jpeg(image, quality=90).numpy()
            (place / f"{number:07}.jpg").write_bytes(content)
        else:
            first = root / "folder" / "train" / f"class{number % CLASSES}"
            os.link(first / f"{number % DISTINCT:07}.jpg", place / f"{number:07}.jpg")
    files = sorted((root / "folder").rglob("*.jpg"))
    images = np.stack([tf.io.decode_jpeg(file.read_bytes()).numpy() for file in files])
    labels = np.array([int(file.parent.name[-1]) for file in files])
    np.savez(root / "set.npz", x_train=images, y_train=labels)
    for file_format in ("tfrecord", "array_record"):
        builder(files, labels, side, root / file_format, file_format).download_and_prepare()


def builder(files, labels, side, data_dir, file_format):
    """A TensorFlow Datasets builder of the JPEG files."""
    import tensorflow_datasets as tfds

    class BenchmarkPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(side, side, 3), encoding_format="jpeg")
            label = tfds.features.ClassLabel(num_classes=CLASSES)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, (file, label) in enumerate(zip(files, labels, strict=True)):
                yield number, {"image": str(file), "label": int(label)}

    return BenchmarkPictures(data_dir=data_dir, file_format=file_format)


def linked(files, folder, count):
    """A folder of `count` hard links to the files."""
    originals = sorted(files.rglob("*.jpg"))
    for number in range(count):
        place = folder / "train" / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], place / f"{number:07}.jpg")


def measured(source, folder, side, repeats):
    """What a worker process prints."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.input",
        "--repeats",
        str(repeats),
        "--worker",
        source,
        str(folder),
        str(side),
    ]
    environment = {**os.environ, "SOAR_TF_CACHE": str(folder / "cache")}
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=common.ROOT, env=environment
    )
    return json.loads(found.stdout.splitlines()[-1])


def worker(source, folder, side, repeats):
    """Reads epochs of batches; images per second, seconds before the first batch, peak memory."""
    from soar_tf.cli.startup import load_tensorflow

    load_tensorflow()
    import tensorflow as tf

    tf.zeros(1).numpy()
    begun, base = time.perf_counter(), _peak()
    epochs = repeats + 1
    batches = iter(
        peer(source, folder, side, epochs) if source in PEERS else ours(source, folder, epochs)
    )
    seconds, first = [], None
    steps = next(batches)
    for _ in range(epochs):
        start = time.perf_counter()
        for _ in range(min(steps, 50) if repeats == 0 else steps):
            x, _ = next(batches)
            first = first or time.perf_counter() - begun
        x[0, 0, 0, 0].numpy()
        seconds.append(time.perf_counter() - start)
    found = {"start_seconds": first, "peak_mib": _peak(), "peak_above_import_mib": _peak() - base}
    if repeats:
        found["images_per_second"] = steps * BATCH / statistics.median(seconds[1:])
    return found


def ours(source, folder, epochs):
    """Yields the number of steps of an epoch, then the batches of the package's pipeline."""
    from soar_tf import datasets

    arrays = f"npz:{folder / 'set.npz'}"
    names = {"folder": f"folder:{folder / 'folder'}", "npz": arrays, "memory": arrays}
    name = names.get(source, "tfds:benchmark_pictures")
    limit = 2**40 if source == "memory" else 0
    data = datasets.load(name, data_dir=folder / source, validation_images=0, memory_limit=limit)
    pipeline, steps = datasets.training_pipeline(
        data["train"], BATCH, seed=0, epochs=epochs, memory_limit=limit
    )
    yield steps
    yield from pipeline


def peer(source, folder, side, epochs):
    """The same of Keras's loader, and of plain tf.data: shuffled, batched, in [0, 1]."""
    import keras
    import tensorflow as tf

    files = folder / "folder" / "train"
    if source == "keras":
        made = keras.utils.image_dataset_from_directory(
            files, batch_size=BATCH, image_size=(side, side), seed=0, verbose=False
        )
        count = int(made.cardinality())
    else:
        paths = sorted(map(str, files.rglob("*.jpg")))
        labels = [int(pathlib.Path(path).parent.name[-1]) for path in paths]
        count = len(paths) // BATCH

        def decode(path, label):
            image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
            return tf.ensure_shape(image, (side, side, 3)), label

        made = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths), 0)
        made = made.map(decode, tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    made = made.map(lambda x, y: (tf.cast(x, tf.float32) / 255.0, y), tf.data.AUTOTUNE)
    yield count
    yield from made.prefetch(tf.data.AUTOTUNE).repeat(epochs)


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(figures):
    """The figures as text."""
    lines = ["images/s (MiB above TensorFlow's)", ""]
    for side, sources in figures["speed"].items():
        cells = [
            f"{name} {found['images_per_second']:.0f} ({found['peak_above_import_mib']:.0f})"
            for name, found in sources.items()
        ]
        lines.append(f"{side} pixels: {', '.join(cells)}")
    lines += ["", "folder, images: MiB above TensorFlow's, seconds before the first batch"]
    for count, found in figures["memory"].items():
        lines.append(f"{count}: {found['peak_above_import_mib']:.0f}, {found['start_seconds']:.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
