"""What the documents' snippets need to be run: finding them, and the files that they presuppose."""

import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
)

# A fenced block, perhaps after a comment such as `<!-- not run: takes a day -->`.
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n+)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```",
    re.M | re.S,
)
SHELLS = ("", "sh", "bash", "console")

# What makes a command small. It stands last, so it wins over what the document says.
SMALL = {
    "train": [
        *("--limit", "32", "--batch-size", "16", "--epochs", "1", "--evaluate", "8"),
        *("--learning-rate", "0.001", "--verbose", "0"),
    ],
    "evaluate": ["--limit", "8"],
    "reproduce": ["--budget", "smoke", "--verbose", "0"],
    "transfer": ["--limit", "8"],
}


def snippets(name, languages):
    """The code of a document's fenced blocks of these languages, without those marked."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [
        match["code"]
        for match in _FENCE.finditer(text)
        if match["language"] in languages and not match["reason"]
    ]


def commands(name):
    """The `soar-tf` commands of a document, as lists of arguments without `soar-tf`.

    Lines that begin with `$` stand in transcripts, such as that of the error texts, whose own tests
    compare what follows.
    """
    lines = "".join(snippets(name, SHELLS)).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines if line.startswith("soar-tf")]
    return [words[1:] for words in split if words[:1] == ["soar-tf"]]


# Methods that train a network from its first step on.
FROM_SCRATCH = ("adversarial", "trades", "standard", "fast", "n-fgsm", "elle", "gradalign", "qub")


def small(command):
    """A command on a few images and for an epoch."""
    words = list(command)
    if command[0] == "train" and "--config" not in words:
        words += ["--network-arg", "width=0.1"] if not _is_file(words, "--network") else []
        if not set(words) & {*FROM_SCRATCH, "robust", "--init-from"}:
            words += ["--pretrain-epochs", "1"]
    return words + SMALL.get(command[0], [])


def _is_file(words, option):
    given = words[words.index(option) + 1] if option in words else ""
    return given.endswith(".keras") or "--init-from" in words


def presupposed(command, folder, tiny_run):
    """Makes what a command reads and no command before it has written.

    Models are those of a finished run on digits; `.keras` and `.npz` files hold a network with a
    softmax head and 32x32 colour images, as users bring them.
    """
    models = {"--source", "--target", "--init-from", "--masking-source", "--network"}
    for option, value in zip(["", *command], [*command, ""], strict=True):
        path = folder / value
        positional = command[0] in ("evaluate", "export") and option == command[0]
        if value.startswith("npz:"):
            _write_npz(folder / value.removeprefix("npz:"))
        elif value.startswith("folder:"):
            _write_folder(folder / value.removeprefix("folder:"))
        elif path.exists() or not (option in models or positional):
            continue
        elif value.endswith(".keras"):
            _write_keras(path)
        elif value.startswith("runs/"):
            shutil.copytree(tiny_run, path)
        elif "/" in value:
            shutil.copytree(tiny_run / "saved_model", path)


def _write_npz(path):
    generator = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"] = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(40) % 10
    np.savez(path, **arrays)


def _write_folder(path):
    from PIL import Image

    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (60, 48, 40, 3))):
        place = path / f"class{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(place / f"{number}.jpg")


def _write_keras(path):
    import keras

    keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.AveragePooling2D(8),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax"),
        ]
    ).save(path)


def write_cifar10(folder):
    """A folder as TensorFlow Datasets prepares it, with 40 images of noise a split."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("cifar10", data_dir=folder, try_gcs=False)
    generator = np.random.default_rng(0)
    rows = [
        {"image": generator.integers(0, 256, (32, 32, 3), dtype=np.uint8), "label": i % 10}
        for i in range(40)
    ]
    os.makedirs(builder.data_path)
    writer = tfds.core.SequentialWriter(builder.info, 100)
    writer.initialize_splits(["train", "test"])
    for name in ("train", "test"):
        writer.add_examples({name: [{**row, "id": f"{name}_{i}"} for i, row in enumerate(rows)]})
    writer.close_all()
