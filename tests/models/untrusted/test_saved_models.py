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
        (
            lambda: [tf.numpy_function(lambda: 1.0, [], tf.float32, stateful=False)],
            "PyFuncStateless",
        ),
        (lambda: [tf.print("x", output_stream="file:///nowhere")], "PrintV2"),
        (
            lambda: [
                tf.raw_ops.SaveV2(
                    prefix="p", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.ones(1)]
                )
            ],
            "SaveV2",
        ),
        (
            lambda: [
                tf.raw_ops.RestoreV2(
                    prefix="p", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
                )[0]
            ],
            "RestoreV2",
        ),
        (
            lambda: [tf.raw_ops.DebugIdentity(input=tf.ones(1), debug_urls=["file:///x"])],
            "DebugIdentity",
        ),
    ],
)
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


def changed(folder, change):
    """Rewrites a SavedModel's graph; `change` is called with its one meta graph."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(message.meta_graphs[0])
    path.write_bytes(message.SerializeToString())
    return folder


def refuse(folder, message):
    with pytest.raises(InputError, match=message) as error:
        saved_models.check(folder, "model")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    """The graph of a SavedModel that is allowed, as bytes."""
    return (
        save(tmp_path_factory.mktemp("saved") / "m", lambda: []) / "saved_model.pb"
    ).read_bytes()


@pytest.fixture
def folder(harmless, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(harmless)
    saved_models.check(tmp_path / "model", "model")
    return tmp_path / "model"


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


def test_a_constant_that_stands_for_terabytes_is_refused(folder):
    def change(graph):
        node = graph.graph_def.node.add(name="huge", op="Const")
        node.attr["value"].tensor.tensor_shape.dim.add(size=2**40)

    refuse(changed(folder, change), f"a constant of {2**40} elements, 'huge'")


def test_an_asset_outside_the_model_is_refused(folder):
    def change(graph):
        graph.asset_file_def.add(filename="../../etc/passwd")

    refuse(changed(folder, change), "must hold its files inside itself")


def operations_of_all_kinds():
    ops, x = keras.ops, keras.Input((8, 8, 3))
    parts = [
        ops.clip(x, 0.1, 0.9),
        ops.exp(x),
        ops.log1p(x),
        ops.sin(x) ** 2,
        ops.sort(x, axis=1),
        ops.cumsum(x, axis=2),
        ops.where(x > 0.5, x, 1 - x),
        ops.flip(x, 1),
        ops.roll(x, 2, 1),
        ops.pad(x[:, 1:-1], [[0, 0], [1, 1], [0, 0], [0, 0]], "reflect"),
        ops.softmax(x, 1),
        ops.max_pool(x, 3, 1, "same"),
        ops.average_pool(x, 3, 1, "same"),
        ops.erf(x),
        ops.gelu(x),
        ops.image.resize(x, (8, 8), "bicubic"),
        ops.image.gaussian_blur(x),
        ops.rsqrt(x + 1),
        ops.take(x, [2, 1, 0], axis=3),
        ops.one_hot(ops.argmax(x, 3), 3),
        ops.square(ops.floor(x)),
        ops.einsum("bhwc,bhwd->bhwd", x, x),
        ops.tile(ops.mean(x, 1, keepdims=True), (1, 8, 1, 1)),
        ops.reshape(ops.top_k(ops.reshape(x, (-1, 192)), 192)[0], (-1, 8, 8, 3)),
    ]
    y = keras.layers.Flatten()(ops.concatenate(parts))
    return keras.Model(x, keras.layers.Dense(3)(y))


def backward(network):
    """A network's input gradient, with its function library."""

    @tf.function(input_signature=[tf.TensorSpec((1, *network.input_shape[1:]))])
    def gradient(x):
        return tf.gradients(network(x, training=False), x)

    return gradient.get_concrete_function().graph.as_graph_def()


@pytest.mark.parametrize("build", [layers_of_all_kinds, operations_of_all_kinds])
def test_gradients_that_are_stored_beside_a_network_are_allowed(build):
    graph = backward(build())
    operations = {node.op for node in graph.node}
    operations |= {node.op for f in graph.library.function for node in f.node_def}
    functions = {function.signature.name for function in graph.library.function}
    assert {op for op in operations - functions if saved_models.refusal(op)} == set()


def test_every_operation_is_refused_but_for_the_lists():
    """A new TensorFlow's operations are refused until somebody has looked at them."""
    from tensorflow.python.framework import op_def_registry

    names = [name for name in dir(tf.raw_ops) if not name.startswith("_")]
    allowed = {name for name in names if saved_models.refusal(name) is None}
    stateful = {name for name in allowed if op_def_registry.get(name).is_stateful}
    assert len(names) > 1000 and 400 < len(allowed) < 550
    assert stateful <= saved_models._STATEFUL
    for name in allowed:
        definition = op_def_registry.get(name)
        text = {a.name for a in definition.attr if a.type in ("string", "list(string)")}
        assert not any(
            word in attribute for attribute in text for word in ("file", "path", "url", "address")
        ), name
    for name in ("Conv2D", "MatMul", "LogSoftmax", "Relu", "FusedBatchNormV3", "ReadVariableOp"):
        assert name in allowed
    for name in ("SaveV2", "RestoreV2", "ShardedFilename", "MergeV2Checkpoints"):
        assert name not in allowed and saved_models.refusal(name, saver=True) is None
