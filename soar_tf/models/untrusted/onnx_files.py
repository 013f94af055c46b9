"""ONNX files: bounded, whole in themselves, and of the standard's own operations.

An ONNX file can name other files for its weights, and operators of libraries that a runtime would
load. Both are refused, and so are random operators, which would make the logits depend on more than
the image.
"""

from soar_tf import files
from soar_tf.errors import InputError

MAX_BYTES = 2 * 2**30 - 1  # protocol buffers end there
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def read(path, name):
    """The content of an ONNX file, checked.

    Args:
        path: The file.
        name: What it is called in errors.

    Returns:
        bytes.

    Raises:
        InputError: If it is no regular file, too large, no ONNX file, names other files, or holds
            an operator that is not the standard's or that draws random numbers.
        OSError: If it cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    content = files.read_bytes(path, name, MAX_BYTES)
    try:
        model = onnx.ModelProto.FromString(content)
        if not model.graph.node:
            raise InputError(f"{name} is not an ONNX file: it holds no operators.")
        for message in _messages(model):
            _check(message, name, onnx)
    except (DecodeError, UnicodeDecodeError):  # texts are decoded when they are looked at
        raise InputError(f"{name} is not an ONNX file, or it is damaged.") from None
    return content


def _messages(message):
    """A message and all that is nested in it, subgraphs and functions included."""
    waiting = [message]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)


def _check(message, name, onnx):
    if isinstance(message, onnx.NodeProto):
        if message.domain not in _DOMAINS:
            what = f"operator {message.op_type!r} of {message.domain!r}"
        elif message.op_type in _RANDOM:
            what = f"random operator {message.op_type!r}"
        else:
            return
        raise InputError(f"{name} must only compute. Received: a file with the {what}.")
    if isinstance(message, onnx.TensorProto):
        external = message.data_location == onnx.TensorProto.EXTERNAL
        if external or message.external_data:
            raise InputError(f"{name} must hold its weights itself; it names other files for them.")
