"""Small data sets, and damage to files."""

import os
import zipfile

import numpy as np


def damage(path, random):
    """Flips a bit of a file, or cuts it off, or empties it."""
    content = bytearray(path.read_bytes())
    how = random.choice(("flip", "cut", "empty"))
    if how == "flip":
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content if how == "flip" else content[: len(content) // 2 * (how == "cut")])


def npz(folder, random):
    """An npz file with a flipped bit in an array, or cut off."""
    folder.mkdir()
    path = folder / "set.npz"
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1), np.uint8)
    np.savez(path, x_train=images, y_train=np.arange(40) % 4)
    content = bytearray(path.read_bytes())
    if random.random() < 0.5:
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("x_train.npy").header_offset + 300
        content[start + random.randrange(2000)] ^= 1 << random.randrange(8)
    else:
        content = content[: random.randrange(len(content))]
    path.write_bytes(content)
    return f"npz:{path}", (), "must be a readable .npz file"


def tfds(folder, random):
    """Records of TensorFlow Datasets with a flipped bit."""
    import tensorflow_datasets as tfds

    def make(builder):
        os.makedirs(builder.data_path)
        images = np.random.default_rng(0).integers(0, 255, (20, 28, 28, 1), np.uint8)
        rows = [{"image": image, "label": i % 10} for i, image in enumerate(images)]
        writer = tfds.core.SequentialWriter(builder.info, 100)
        writer.initialize_splits(["train", "test"])
        writer.add_examples({"train": rows, "test": rows})
        writer.close_all()

    def prepare():
        make(tfds.builder("mnist", data_dir=folder))

    in_child(prepare)
    path = next(folder.rglob("*train*tfrecord*"))
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    return "mnist", ("--data-dir", str(folder), "--network", "mlp"), "could not be read"


def image_folder(folder, random):
    """A folder of images of which one is cut off."""
    import tensorflow as tf

    def write():
        pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
        for name in ("cat", "dog"):
            (folder / "train" / name).mkdir(parents=True)
            for i in range(12):
                content = tf.io.encode_png(pixels).numpy()
                (folder / "train" / name / f"{i:02d}.png").write_bytes(content)

    in_child(write)
    path = random.choice(sorted(folder.rglob("*.png")))
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content) - 20)])
    return f"folder:{folder}", (), "must be a readable image"


def in_child(function):
    """Runs a function that uses TensorFlow in a child, since this process has to fork later."""
    if (child := os.fork()) == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(f"{function} failed")


KINDS = (npz, tfds, image_folder)
