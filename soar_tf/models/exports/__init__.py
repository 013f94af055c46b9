"""Export formats: one file per format, one line in `soar_tf/registry/tables.py`; and the export."""

import contextlib
import dataclasses
import io
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

from soar_tf import files, registry
from soar_tf.errors import InputError, RunError
from soar_tf.models.exports.format import Format
from soar_tf.models.exports.keras_format import KerasFormat
from soar_tf.models.exports.litert_format import LiteRTFormat
from soar_tf.models.exports.onnx_format import ONNXFormat
from soar_tf.models.exports.saved_model_format import SavedModelFormat
from soar_tf.models.inference import as_logits_fn
from soar_tf.ops import random
from soar_tf.validation import check_pixels

__all__ = [
    "ALL_OBJECTS",
    "Export",
    "Format",
    "KerasFormat",
    "LiteRTFormat",
    "ONNXFormat",
    "SavedModelFormat",
    "available",
    "check",
    "export",
    "get",
    "guess",
]

ALL_OBJECTS = registry.EXPORT_FORMATS

# Float32 formats differ from the network by rounding, relative to the largest logit.
_SAME = 1e-3
_NOISE_IMAGES = 64


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written, and how it compares with the network that it was made of.

    Attributes:
        path: The file or folder.
        format: The format's registered name.
        quantize: `None`, `"float16"` or `"int8"`.
        bytes: Its size.
        images: Number of images on which the two were compared; 0 for a subclassed network without
            `images`, whose input only Keras knows. The rest is then `None`.
        compared_on: What these images are.
        same_top_class: Share of them for which both have the same largest logit.
        largest_difference: Largest difference of two logits.
        largest_logit: Largest magnitude of the network's logits, for comparison.
    """

    path: str
    format: str
    quantize: str | None
    bytes: int
    images: int
    compared_on: str
    same_top_class: float | None
    largest_difference: float | None
    largest_logit: float | None

    def to_dict(self):
        """The attributes, JSON-serializable."""
        return dataclasses.asdict(self)


def export(network, path, format="saved_model", *, quantize=None, images=None):
    """Ships a network: images `[B, H, W, C]` in, logits `[B, C]` out.

    The export is written under another name, read back in its own runtime and compared with the
    network; only then does it get its name.

    Args:
        network: A built `keras.Model` giving logits, or a `RobustModel`, whose network is exported.
        path: Where to write: a file that does not exist, or for SavedModels a folder that does not
            exist or is empty.
        format: `"saved_model"`, `"keras"`, `"litert"`, `"onnx"`, or the name of an installed
            plugin (entry point group `soar_tf.export_formats`): a subclass of `Format`.
        quantize: For LiteRT `"float16"` or `"int8"`; `None` keeps float32.
        images: float32 `[N, H, W, C]` in [0, 1], such as 200 validation images: calibrate int8, and
            are what export and network are compared on. `None` compares on noise.

    Returns:
        An `Export`.

    Raises:
        InputError: If `path` is in use or cannot be written, a runtime is not installed, int8 has
            no images, or the format has no such operation.
        RunError: If an export without quantization gives other logits than the network.

    Example:

    >>> import soar_tf, tempfile
    >>> path = tempfile.mkdtemp() + "/mlp.keras"
    >>> exported = soar_tf.export(soar_tf.networks.mlp(), path, "keras")
    >>> exported.same_top_class, exported.images
    (1.0, 64)
    """
    network = getattr(network, "network", network)
    writer, path = check(path, format, quantize), Path(path)
    images, compared_on = _comparison_images(network, images)
    if quantize == "int8" and compared_on != "images":
        raise InputError("`images` are needed to calibrate int8.")
    temporary = files.unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # TensorFlow's own error for a folder that cannot be written names another file.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=files.UNFINISHED) as room:
            _reserve(Path(room, "room"), network, quantize)
        _write(writer, network, temporary, quantize, images)
        result = _compared(network, writer, temporary, images)
        if quantize is None and len(images):
            _check_same(result, path)
        files.sync_tree(temporary)  # a file is a tree of one
        if path.is_dir():
            path.rmdir()
        os.replace(temporary, path)
        files.sync(path.parent)
    except OSError as error:
        raise InputError(f"`path` {path} cannot be written: {error.strerror}.") from None
    finally:
        if temporary.exists():
            files.remove(temporary)
    return Export(str(path), format, quantize, _size(path), len(images), compared_on, **result)


def check(path, format, quantize=None):
    """Refuses what `export` would refuse for these arguments, before a network is loaded.

    Args:
        path: Where to write.
        format: The format's registered name.
        quantize: `None`, `"float16"` or `"int8"`.

    Returns:
        The `Format`.

    Raises:
        InputError: See `export`.

    Example:

    >>> from soar_tf.models import exports
    >>> exports.check("m.keras", "keras").title
    'a Keras file'
    """
    writer = get(format)
    writer.check(files.check_path(path, "path"), quantize)
    _check_free(Path(path), writer)
    return writer


def get(name):
    """A registered format.

    Args:
        name: See `export`.

    Raises:
        InputError: For an unknown name.

    Example:

    >>> from soar_tf.models import exports
    >>> exports.get("litert").quantizations
    ('float16', 'int8')
    """
    return ALL_OBJECTS.build(name, {})


def available():
    """All formats by name, plugins (entry point group `soar_tf.export_formats`) included.

    Returns:
        `(classes, problems)`: names to classes, and for plugins that cannot be used a message.

    Example:

    >>> from soar_tf.models import exports
    >>> sorted(exports.available()[0])[:2]
    ['keras', 'litert']
    """
    return ALL_OBJECTS.available()


def guess(path):
    """The format that a path's suffix stands for; SavedModel for a name without a known one.

    Example:

    >>> from soar_tf.models import exports
    >>> exports.guess("m.tflite"), exports.guess("exported/digits")
    ('litert', 'saved_model')
    """
    suffix = Path(path).suffix
    return next(
        (name for name, cls in available()[0].items() if cls.suffix and cls.suffix == suffix),
        "saved_model",
    )


def _check_free(path, writer):
    if writer.suffix is None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"`path` must not exist yet, or be empty. Received: {path}.")
    elif path.exists() or path.is_symlink():
        raise InputError(f"`path` must not exist yet. Received: {path}.")


def _comparison_images(network, images):
    """`(images, what they are)`."""
    if images is not None:
        images = np.asarray(images, np.float32)
        check_pixels(images, "images")
        return images, "images"
    if not getattr(network, "inputs", None):
        return np.zeros((0,), np.float32), "nothing"
    sides = [side or 32 for side in network.input_shape[1:]]
    keys = random.example_keys(0, tf.range(_NOISE_IMAGES), purpose="export")
    return random.uniform(keys, sides).numpy(), "noise"


def _reserve(path, network, quantize):
    """Fails unless the weights fit on the disk, under which HDF5 would end the process."""
    size = network.count_params() * (4 if quantize is None else 1)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size + 4096)


def _write(writer, network, path, quantize, images):
    try:
        # Keras and the converters print; stdout belongs to results.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer.write(network, path, quantize=quantize, images=images)
    except (OSError, InputError):
        raise
    except Exception as error:  # the converters raise classes of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"`network` cannot be written as {writer.title}: {reason}") from None


def _compared(network, writer, path, images):
    """How the export's logits differ from the network's."""
    if not len(images):
        return dict.fromkeys(("same_top_class", "largest_difference", "largest_logit"))
    wanted = as_logits_fn(network)(images).numpy()
    found = writer.read(path).logits_fn(tf.constant(images)).numpy()
    if found.shape != wanted.shape:
        raise RunError(f"The export gives outputs of shape {found.shape}, not {wanted.shape}.")
    return {
        "same_top_class": float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
        "largest_difference": float(np.abs(found - wanted).max()),
        "largest_logit": float(np.abs(wanted).max()),
    }


def _check_same(result, path):
    allowed = _SAME * max(1.0, result["largest_logit"])
    if not result["largest_difference"] <= allowed:
        raise RunError(
            f"{path} was not written: its logits differ from the network's by "
            f"{result['largest_difference']:.2g}, allowed is {allowed:.2g}."
        )


def _size(path):
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts if part.is_file())
