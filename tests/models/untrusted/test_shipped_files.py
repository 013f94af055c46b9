"""LiteRT and ONNX files from elsewhere: what could do more than compute is refused unopened."""

import contextlib
import os
import struct

import keras
import numpy as np
import pytest

import soar_tf
from soar_tf.errors import InputError
from soar_tf.models import loading
from soar_tf.models.untrusted import litert_files, onnx_files


@pytest.fixture(scope="module")
def litert(tmp_path_factory):
    pytest.importorskip("ai_edge_litert")
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("litert") / "m.tflite"
    soar_tf.export(soar_tf.networks.mlp(width=0.1), path, "litert")
    return path.read_bytes()


def _with_operation(content, code, custom=None):
    """A LiteRT file whose first operation is another one."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    operation = model.operatorCodes[0]
    operation.builtinCode, operation.deprecatedBuiltinCode = code, min(code, 127)
    operation.customCode = custom
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("code", "custom", "message"),
    [
        (32, b"FlexWriteFile", "the custom operation 'FlexWriteFile'"),
        (32, None, "a custom operation"),
        (142, None, "a variable"),
        (148, None, "a random number"),
        (173, None, "STABLEHLO_CUSTOM_CALL"),
    ],
)
def test_litert_operations_that_do_more_than_compute(code, custom, message, litert, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(_with_operation(litert, code, custom))
    with pytest.raises(InputError, match=f"must only compute. Received: a file with {message}"):
        loading.load(path)


def test_the_reader_sees_every_operation(litert):
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAs(litert)
    wanted = [model.OperatorCodes(i).BuiltinCode() for i in range(model.OperatorCodesLength())]
    assert [code for code, _ in litert_files._operations(litert)] == wanted and wanted


def test_damaged_litert_files_are_one_line(litert, tmp_path):
    path = tmp_path / "m.tflite"
    for content in (b"", b"hello", litert[:40], struct.pack("<I", 2**31) + litert[4:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not a LiteRT file, or it is damaged"):
            loading.load(path)
    generator = np.random.default_rng(0)
    for _ in range(300):  # the reader itself: an answer or the one error
        damaged = bytearray(litert[:400])
        damaged[int(generator.integers(8, 400))] = int(generator.integers(256))
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(InputError):
            litert_files.read(path, "x")


def test_what_is_no_regular_file_or_too_large(litert, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.tflite")
    with pytest.raises(InputError, match="must be a regular file. Received: a named pipe"):
        loading.load(tmp_path / "pipe.tflite")
    (tmp_path / "m.tflite").write_bytes(litert)
    monkeypatch.setattr(litert_files, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="must have at most 100 bytes"):
        loading.load(tmp_path / "m.tflite")


def _onnx(path, node=(), **attributes):
    """An ONNX file: one node between images and logits."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(*(node or ("Identity",)), ["x"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", kind, [None, 4])],
        [helper.make_tensor_value_info("y", kind, [None, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx, model


def test_onnx_operators_that_do_more_than_compute(tmp_path):
    path = tmp_path / "m.onnx"
    onnx, model = _onnx(path, ("WriteFile",), domain="com.example")
    onnx.save(model, path)
    with pytest.raises(InputError, match="operator 'WriteFile' of 'com.example'"):
        onnx_files.read(path, "x")
    onnx, model = _onnx(path, ("RandomNormalLike",))
    onnx.save(model, path)
    with pytest.raises(InputError, match="random operator 'RandomNormalLike'"):
        onnx_files.read(path, "x")


def test_a_custom_operator_in_a_branch_is_found(tmp_path):
    path = tmp_path / "m.onnx"
    onnx, inner = _onnx(path, ("WriteFile",), domain="com.example")
    _, model = _onnx(path, ("If",), then_branch=inner.graph, else_branch=inner.graph)
    onnx.save(model, path)
    with pytest.raises(InputError, match="operator 'WriteFile'"):
        onnx_files.read(path, "x")


def test_an_onnx_file_that_names_other_files(tmp_path):
    path = tmp_path / "m.onnx"
    onnx, model = _onnx(path)
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="it names other files"):
        onnx_files.read(path, "x")


def test_what_is_no_onnx_file(tmp_path):
    pytest.importorskip("onnx")
    for content in (b"", b"\xff" * 50):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(InputError, match="is not an ONNX file"):
            onnx_files.read(tmp_path / "m.onnx", "x")
