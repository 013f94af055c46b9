"""SavedModels that could do more than compute are refused, by the name of the operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf.errors import InputError
from soar_tf.models import loading
from soar_tf.models.untrusted import saved_models

SPEC = tf.TensorSpec([None, 2, 2, 1], tf.float32)


class Program(tf.Module):
    """A linear classifier that runs `effect` on the way."""

    def __init__(self, effect):
        super().__init__()
        self.effect = effect
        self.weights = tf.Variable(tf.ones((4, 3)))

    @tf.function(input_signature=[SPEC])
    def serve(self, x):
        with tf.control_dependencies(self.effect()):
            return tf.matmul(tf.reshape(x, (-1, 4)), self.weights)


def save(folder, effect):
    program = Program(effect)
    tf.saved_model.save(program, str(folder), signatures={"serving_default": program.serve})
    return folder


def test_a_model_that_writes_a_file_is_refused_and_writes_nothing(tmp_path):
    target = tmp_path / "written.txt"
    folder = save(tmp_path / "model", lambda: [tf.io.write_file(str(target), "gotcha")])
    with pytest.raises(InputError, match=r"operation WriteFile .* can write files; if you trust"):
        loading.load(folder)
    assert not target.exists()
    # It really would have written, and does so where it is trusted.
    loading.load(folder, trust=True).logits_fn(np.zeros((1, 2, 2, 1), "float32"))
    assert target.read_text() == "gotcha"


def hidden_in_branches(target):
    """The write lies two functions deep, in a branch of a condition inside a loop."""

    def body(i):
        tf.cond(i > 5, lambda: tf.io.write_file(target, "x"), lambda: tf.no_op())
        return i + 1

    return [tf.while_loop(lambda i: i < 2, body, [tf.constant(0)])[0]]


@pytest.mark.parametrize(
    ("effect", "operation"),
    [
        (lambda: hidden_in_branches("/nowhere"), "WriteFile"),
        (lambda: [tf.io.read_file("/etc/hostname")], "ReadFile"),
        (lambda: [tf.io.matching_files("/etc/*")], "MatchingFiles"),
        (lambda: [tf.py_function(lambda: 1.0, [], tf.float32)], "EagerPyFunc"),
        (lambda: [tf.numpy_function(lambda: 1.0, [], tf.float32, stateful=False)],
         "PyFuncStateless"),
        (lambda: [tf.print("x", output_stream="file:///nowhere")], "PrintV2"),
        (lambda: [tf.raw_ops.SaveV2(prefix="p", tensor_names=["a"], shape_and_slices=[""],
                                    tensors=[tf.ones(1)])], "SaveV2"),
        (lambda: [tf.raw_ops.RestoreV2(prefix="p", tensor_names=["a"], shape_and_slices=[""],
                                       dtypes=[tf.float32])[0]], "RestoreV2"),
        (lambda: [tf.raw_ops.DebugIdentity(input=tf.ones(1), debug_urls=["file:///x"])],
         "DebugIdentity"),
    ],
)  # fmt: skip
def test_operations_that_are_refused(effect, operation, tmp_path):
    folder = save(tmp_path / "model", effect)
    with pytest.raises(InputError, match=f"holds the operation {operation} "):
        saved_models.check(folder, "model")


def test_a_table_that_is_filled_from_a_file_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("a 1\nb 2\n")

    class WithTable(Program):
        def __init__(self):
            super().__init__(lambda: [])
            self.table = tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(
                    str(tmp_path / "words.txt"), tf.string, 0, tf.int64, 1, delimiter=" "
                ),
                -1,
            )

    program = WithTable()
    tf.saved_model.save(program, str(tmp_path / "m"), signatures={"serving_default": program.serve})
    with pytest.raises(InputError, match="InitializeTableFromTextFileV2"):
        saved_models.check(tmp_path / "m", "model")


def test_the_savers_functions_do_not_hide_a_call_to_them(tmp_path):
    """A graph that names its serving call as its saver's is looked at all the same."""
    from tensorflow.core.protobuf import saved_model_pb2

    folder = save(tmp_path / "model", lambda: [tf.io.write_file("/nowhere", "x")])
    path = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = message.meta_graphs[0]
    graph.object_graph_def.Clear()
    call = graph.signature_def["serving_default"].outputs["output_0"].name
    graph.saver_def.save_tensor_name = call
    path.write_bytes(message.SerializeToString())
    found = [node.op for _, node in saved_models.reachable_nodes(graph)]
    assert "WriteFile" in found and "SaveV2" in found
    with pytest.raises(InputError, match="holds the operation"):
        saved_models.check(folder, "model")


def layers_of_all_kinds():
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(2.0)(x)
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.SeparableConv2D(4, 3, padding="same")(x)
    x = keras.layers.GroupNormalization(2)(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = keras.layers.Reshape((64, 4))(x)
    x = keras.layers.MultiHeadAttention(2, 2)(x, x)
    x = keras.layers.LSTM(4)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("build", [layers_of_all_kinds, soar_tf.networks.mlp])
def test_networks_as_keras_exports_them_are_allowed(build, tmp_path):
    network = build()
    soar_tf.export(network, tmp_path / "model")
    loaded = loading.load(tmp_path / "model")
    x = np.random.default_rng(0).uniform(0, 1, (2, *network.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(loaded.logits_fn(x), network(x, training=False), atol=1e-5)


def test_other_forms_of_the_graph_are_refused(tmp_path):
    folder = save(tmp_path / "model", lambda: [])
    saved_models.check(folder, "model")
    for name in ("saved_model.cpb", "saved_model.pbtxt"):
        (folder / name).write_bytes(b"")
        with pytest.raises(InputError, match=f"must hold its graph in saved_model.pb, not {name}"):
            saved_models.check(folder, "model")
        (folder / name).unlink()


def test_a_constant_that_stands_for_terabytes_is_refused(tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    folder = save(tmp_path / "model", lambda: [])
    path = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    node = message.meta_graphs[0].graph_def.node.add(name="huge", op="Const")
    node.attr["value"].tensor.tensor_shape.dim.add(size=2**40)
    path.write_bytes(message.SerializeToString())
    with pytest.raises(InputError, match=f"a constant of {2**40} elements, 'huge'"):
        saved_models.check(folder, "model")


def test_an_asset_outside_the_model_is_refused(tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    folder = save(tmp_path / "model", lambda: [])
    path = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    message.meta_graphs[0].asset_file_def.add(filename="../../etc/passwd")
    path.write_bytes(message.SerializeToString())
    with pytest.raises(InputError, match="must hold its files inside itself"):
        saved_models.check(folder, "model")


def test_every_stateful_operation_is_refused_but_for_the_list():
    """A new TensorFlow's stateful operations are refused until somebody has looked at them."""
    from tensorflow.python.framework import op_def_registry

    names = [name for name in dir(tf.raw_ops) if not name.startswith("_")]
    stateful = [name for name in names if op_def_registry.get(name).is_stateful]
    allowed = {name for name in stateful if saved_models.refusal(name) is None}
    assert len(stateful) > 300
    assert allowed <= saved_models._ALLOWED | {"Variable"}
    assert saved_models.refusal("NoSuchOperation") is not None
    for name in ("WriteFile", "ReadFile", "PyFunc", "PyFuncStateless", "EagerPyFunc", "PrintV2"):
        assert saved_models.refusal(name) is not None
    for name in ("Conv2D", "MatMul", "LogSoftmax", "Relu", "FusedBatchNormV3", "DecodeRaw"):
        assert saved_models.refusal(name) is None
