"""What is shipped, LiteRT and ONNX files, run in their own runtimes: logits, and no gradients."""

import dataclasses
import hashlib
import os
import threading
from importlib import metadata

import numpy as np

from soar_tf.errors import InputError
from soar_tf.models.extras import require
from soar_tf.models.loaded_model import LoadedModel
from soar_tf.models.untrusted import litert_files, onnx_files

SUFFIXES = (".tflite", ".onnx")


@dataclasses.dataclass(frozen=True)
class Artefact:
    """A shipped file.

    Attributes:
        runtime: The runtime's display name and version.
        bytes: The file's size.
        sha256: The file's hash, hexadecimal.
        types: Names of the tensors' types, sorted: `"int8"` is among them for a quantized file.
    """

    runtime: str
    bytes: int
    sha256: str
    types: tuple

    def to_dict(self):
        """The attributes, JSON-serializable."""
        return dataclasses.asdict(self)


class _LiteRT:
    """A LiteRT file in its interpreter.

    Attributes:
        input_shape: `(H, W, C)`.
        num_classes: Number of classes.
        types: See `Artefact`.
        runtime: See `Artefact`.
    """

    def __init__(self, path, name):
        require(["ai_edge_litert"], "litert", "Running a LiteRT file")
        content = litert_files.read(path, name)
        from ai_edge_litert.interpreter import Interpreter

        self.content = content
        self.runtime = f"LiteRT {metadata.version('ai-edge-litert')}"
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())
        except (ValueError, RuntimeError) as error:
            raise _unreadable(name, "LiteRT", error) from None
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        _check_single(name, inputs, outputs)
        self._input, self._output = inputs[0], outputs[0]
        shape = self._input["shape_signature"].tolist()
        # A file with a fixed batch is fed batches of that size, the last one filled up.
        self._fixed = None if shape[0] < 0 else shape[0]
        self.input_shape = tuple(None if side < 0 else side for side in shape[1:])
        self.num_classes = _classes(name, self._output["shape_signature"].tolist())
        details = self._interpreter.get_tensor_details()
        self.types = tuple(sorted({np.dtype(tensor["dtype"]).name for tensor in details}))

    def __call__(self, x):
        step = self._fixed or len(x)
        parts = []
        for start in range(0, len(x), step):
            part = x[start : start + step]
            filled = np.zeros((step, *x.shape[1:]), np.float32)
            filled[: len(part)] = part
            parts.append(self._run(filled)[: len(part)])
        return np.concatenate(parts)

    def _run(self, x):
        interpreter, index = self._interpreter, self._input["index"]
        if self._fixed is None:
            interpreter.resize_tensor_input(index, x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, _quantized(x, self._input))
        interpreter.invoke()
        return _dequantized(interpreter.get_tensor(self._output["index"]), self._output)


class _ONNX:
    """An ONNX file in ONNX Runtime, on the processor; for its attributes see `_LiteRT`."""

    def __init__(self, path, name):
        require(["onnx", "onnxruntime"], "onnx", "Running an ONNX file")
        content = onnx_files.read(path, name)
        import onnxruntime

        self.content = content
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own classes, which it does not export
            raise _unreadable(name, "ONNX", error) from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        _check_single(name, inputs, outputs)
        if inputs[0].type != "tensor(float)":
            raise InputError(f"{name} must take float32 images. Received: {inputs[0].type}.")
        self._input = inputs[0].name
        shape = [side if isinstance(side, int) else None for side in inputs[0].shape]
        self._channels_first = len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)
        if self._channels_first:
            shape = [shape[0], *shape[2:], shape[1]]
        self._fixed, self.input_shape = shape[0], tuple(shape[1:])
        self.num_classes = _classes(name, outputs[0].shape)
        self.types = tuple(sorted(_onnx_types(content)))

    def __call__(self, x):
        if self._channels_first:
            x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        step = self._fixed or len(x)
        parts = []
        for start in range(0, len(x), step):
            part = x[start : start + step]
            filled = np.zeros((step, *x.shape[1:]), np.float32)
            filled[: len(part)] = part
            logits = self._session.run(None, {self._input: filled})[0]
            parts.append(logits[: len(part)].astype(np.float32))
        return np.concatenate(parts)


def load(path, argument="model", *, pixel_range=None):
    """Loads a LiteRT or an ONNX file.

    Args:
        path: A `pathlib.Path` that ends in `.tflite` or `.onnx`.
        argument: The argument's name, for the errors.
        pixel_range: See `soar_tf.models.loading.load`.

    Returns:
        A `soar_tf.models.loaded_model.LoadedModel` with an `artefact`, whose logits function has no
        gradients.

    Raises:
        InputError: If it is no such file, does more than compute, has not one input and one output
            of logits, or its runtime is not installed.
    """
    import tensorflow as tf

    from soar_tf.models import scales

    name = f"`{argument}` {path}"
    try:
        run = (_LiteRT if path.suffix == ".tflite" else _ONNX)(path, name)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from None
    lock = threading.Lock()

    def predict(x):
        with lock:  # an interpreter has one set of tensors
            return run(x) if len(x) else np.zeros((0, run.num_classes), np.float32)

    def logits_fn(x):
        x = scales.to_range(x, pixel_range, tf.float32)
        logits = tf.numpy_function(predict, [x], tf.float32)
        logits.set_shape([x.shape[0], run.num_classes])
        return logits

    logits_fn.has_gradients = False
    about = Artefact(
        run.runtime, len(run.content), hashlib.sha256(run.content).hexdigest(), run.types
    )
    return LoadedModel(str(path), logits_fn, run.input_shape, run.num_classes, artefact=about)


def has_gradients(network):
    """Whether attacks can differentiate a network: not if it is a shipped file's logits function.

    Args:
        network: A `keras.Model` or a callable.
    """
    return getattr(network, "has_gradients", True)


def _check_single(name, inputs, outputs):
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"{name} must have one input and one output. Received {len(inputs)} and {len(outputs)}."
        )


def _classes(name, shape):
    if len(shape) != 2 or not isinstance(shape[1], int) or shape[1] < 2:
        raise InputError(f"{name} must give logits [B, C]. Received shape {list(shape)}.")
    return shape[1]


def _quantized(x, details):
    """Images in the type that a file takes: quantized files may take integers."""
    if details["dtype"] is np.float32:
        return x
    scale, zero = details["quantization"]
    if not scale:
        raise InputError(f"The LiteRT file takes {details['dtype'].__name__} without a scale.")
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(x / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _dequantized(logits, details):
    if logits.dtype == np.float32:
        return logits
    scale, zero = details["quantization"]
    return ((logits.astype(np.float32) - zero) * scale).astype(np.float32)


def _onnx_types(content):
    import onnx

    graph = onnx.ModelProto.FromString(content).graph
    names = onnx.TensorProto.DataType
    return {names.Name(tensor.data_type).lower() for tensor in graph.initializer}


def _unreadable(name, kind, error):
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return InputError(f"{name} cannot be read as {kind}: {reason}")
