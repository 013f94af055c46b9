"""SavedModels that could do more than compute are refused, by the name of the operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import soar_tf
from soar_tf import model_files
from soar_tf.errors import InputError
from soar_tf.untrusted import saved_models

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
        model_files.load(folder)
    assert not target.exists()
    # It really would have written, and does so where it is trusted.
    model_files.load(folder, trust=True).logits_fn(np.zeros((1, 2, 2, 1), "float32"))
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


def add_node(function, op, name="hostile", **attributes):
    node = function.node_def.add(name=name, op=op)
    for key, value in attributes.items():
        node.attr[key].s = value


def serving(graph):
    functions = graph.graph_def.library.function
    return next(f for f in functions if f.signature.name.startswith("__inference_serve_"))


def saver(graph, kind="save"):
    return next(f for f in graph.graph_def.library.function if f"traced_{kind}" in f.signature.name)


def write(function, target):
    """Gives a function three nodes that write a file."""
    for name, text in (("path", str(target)), ("text", "gotcha")):
        node = function.node_def.add(name=name, op="Const")
        node.attr["dtype"].type = tf.string.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))
    node = function.node_def.add(name="write", op="WriteFile")
    node.input.extend(["path:output:0", "text:output:0"])


HARMFUL = """
Abort AnonymousIterator BatchFunction CollectiveReduceV2 CopyHost DebugIdentityV3 DecodeProtoV2
EagerPyFunc EncodeProto FileSystemSetConfiguration ImmutableConst LoadAndRemapMatrix MapDataset
MatchingFiles NcclAllReduce PrintV2 PyFunc PyFuncStateless ReadFile RemoteCall RestoreV2 RpcServer
SaveV2 SymbolicGradient TFRecordDataset TPUExecute TRTEngineOp TensorSummary WriteFile
WriteRawProtoSummary XlaCallModule XlaCustomCall XlaCustomCallV2 XlaLaunch _Send NoSuchOperation
Sneaky\x1b[2J
"""


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


@pytest.mark.parametrize("operation", HARMFUL.split())
def test_operations_that_are_not_on_the_list_are_refused_wherever_they_are(operation, folder):
    """In the serving function, in the graph, and in a function that nothing seems to call."""
    import re

    shown = re.escape(operation.replace("\x1b", "?"))
    harmless = (folder / "saved_model.pb").read_bytes()

    def unused(graph):
        add_node(graph.graph_def.library.function.add(signature={"name": "unused"}), operation)

    for change, where in (
        (lambda graph: add_node(serving(graph), operation), "its function serve"),
        (lambda graph: graph.graph_def.node.add(name="x", op=operation), "its graph"),
        (unused, "its function unused"),
    ):
        (folder / "saved_model.pb").write_bytes(harmless)
        refuse(changed(folder, change), rf"holds the operation {shown} \({where}\), which ")


def test_a_model_without_objects_is_refused(folder, tmp_path):
    """TensorFlow would run what `restore_op_name` names, here the write itself, as it loads it."""

    def without_objects(graph):
        graph.ClearField("object_graph_def")
        node = graph.graph_def.node.add(name="write", op="WriteFile")
        graph.saver_def.restore_op_name = node.name

    refuse(changed(folder, without_objects), "must be one graph with its objects")


@pytest.mark.parametrize("number", [0, 2])
def test_a_model_of_other_than_one_graph_is_refused(number, folder):
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = message.meta_graphs[0]
    del message.meta_graphs[:]
    message.meta_graphs.extend([graph] * number)
    path.write_bytes(message.SerializeToString())
    refuse(folder, "must be one graph with its objects")


class WithGradient(tf.Module):
    """A linear classifier whose gradient writes a file."""

    def __init__(self, target):
        super().__init__()
        self.weights = tf.Variable(tf.ones((4, 3)))

        @tf.custom_gradient
        def hostile(x):
            def gradient(upstream):
                with tf.control_dependencies([tf.io.write_file(target, "gotcha")]):
                    return tf.identity(upstream)

            return tf.identity(x), gradient

        self.hostile = hostile

    @tf.function(input_signature=[SPEC])
    def serve(self, x):
        return tf.matmul(tf.reshape(self.hostile(x), (-1, 4)), self.weights)


def test_a_gradient_that_writes_a_file_is_refused(tmp_path):
    target = tmp_path / "written.txt"
    module = WithGradient(str(target))
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(
        module, str(tmp_path / "m"), signatures={"serving_default": module.serve}, options=options
    )
    target.unlink(missing_ok=True)

    def hide(graph):
        """Takes the gradient out of the list by which only visible functions could be checked."""
        gradients = graph.graph_def.library.registered_gradients
        assert len(gradients) == 1
        graph.object_graph_def.concrete_functions.pop(gradients[0].gradient_func, None)

    refuse(tmp_path / "m", "holds the operation WriteFile")
    refuse(changed(tmp_path / "m", hide), "holds the operation WriteFile")
    # It really would have written, at the first gradient.
    loaded = model_files.load(tmp_path / "m", trust=True)
    x = tf.zeros((1, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loaded.logits_fn(x)
    assert not target.exists()
    tape.gradient(y, x)
    assert target.read_text() == "gotcha"


def test_a_harmless_gradient_of_ones_own_is_allowed(tmp_path):
    class Module(WithGradient):
        def __init__(self):
            super().__init__("")
            self.hostile = tf.custom_gradient(lambda x: (x, lambda upstream: 2.0 * upstream))

    module = Module()
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(
        module, str(tmp_path / "m"), signatures={"serving_default": module.serve}, options=options
    )
    loaded = model_files.load(tmp_path / "m")
    x = tf.zeros((1, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loaded.logits_fn(x)
    np.testing.assert_array_equal(tape.gradient(y, x), np.full((1, 2, 2, 1), 6.0))


def test_a_gradient_that_the_process_has_is_refused(folder):
    def change(graph):
        add_node(serving(graph), "Identity", _gradient_op_type=b"EagerPyFunc")

    refuse(changed(folder, change), "must hold its gradients. Received: the gradient 'EagerPyFunc'")


class TestSaver:
    """The functions that save and restore variables may use files; nothing else may use them."""

    def test_what_they_may_not_do(self, folder, tmp_path):
        harmless = (folder / "saved_model.pb").read_bytes()
        for kind in ("save", "restore"):
            (folder / "saved_model.pb").write_bytes(harmless)
            changed(
                folder, lambda graph, kind=kind: write(saver(graph, kind), tmp_path / "written")
            )
            refuse(folder, rf"the operation WriteFile \(its function _traced_{kind}\)")

    def call(self, graph):
        node = serving(graph).node_def.add(name="call", op="StatefulPartitionedCall")
        node.attr["f"].func.name = saver(graph).signature.name

    def by_name(self, graph):
        add_node(serving(graph), saver(graph).signature.name)

    def as_object(self, graph):
        name = saver(graph).signature.name
        graph.object_graph_def.concrete_functions[name].bound_inputs.append(0)

    def as_bare_function(self, graph):
        node = graph.object_graph_def.nodes.add()
        node.bare_concrete_function.concrete_function_name = saver(graph).signature.name

    def as_function(self, graph):
        node = graph.object_graph_def.nodes.add()
        node.function.concrete_functions.append(saver(graph).signature.name)

    def as_gradient(self, graph):
        graph.graph_def.library.registered_gradients.add(
            gradient_func=saver(graph).signature.name, registered_op_type="CustomGradient-1"
        )

    def as_older_gradient(self, graph):
        graph.graph_def.library.gradient.add(
            function_name=serving(graph).signature.name, gradient_func=saver(graph).signature.name
        )

    def as_attribute(self, graph):
        serving(graph).attr["backward_function_name"].func.name = saver(graph).signature.name

    def in_the_graph(self, graph):
        node = graph.graph_def.node.add(name="call", op="StatefulPartitionedCall")
        node.attr["f"].func.name = saver(graph).signature.name

    def in_another_saver(self, graph):
        node = saver(graph, "restore").node_def.add(name="call", op="PartitionedCall")
        node.attr["f"].func.name = saver(graph).signature.name

    @pytest.mark.parametrize(
        "use",
        [call, by_name, as_object, as_bare_function, as_function, as_gradient, as_older_gradient,
         as_attribute, in_the_graph, in_another_saver],
        ids=lambda use: use.__name__,
    )  # fmt: skip
    def test_another_use_of_them_is_refused(self, use, folder):
        refuse(changed(folder, lambda graph: use(self, graph)), r"\(its function _traced_save\)")

    def test_a_serving_function_that_is_called_a_saver_is_refused(self, tmp_path):
        folder = save(tmp_path / "m", lambda: [tf.raw_ops.SaveV2(
            prefix="p", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.ones(1)])])  # fmt: skip

        def rename(graph):
            graph.saver_def.save_tensor_name = (
                graph.signature_def["serving_default"].outputs["output_0"].name
            )

        refuse(changed(folder, rename), "holds the operation SaveV2")

    def test_a_write_that_is_the_savers_own_operation_is_refused(self, folder):
        def rename(graph):
            graph.graph_def.node.add(name="write", op="WriteFile")
            graph.saver_def.restore_op_name = "write"

        refuse(changed(folder, rename), r"the operation WriteFile \(its graph\)")


def test_a_function_with_an_operations_name_does_not_hide_the_operation(folder):
    def change(graph):
        graph.graph_def.library.function.add(signature={"name": "WriteFile"})
        add_node(serving(graph), "WriteFile")

    refuse(changed(folder, change), "holds the operation WriteFile")


def test_a_call_of_a_function_that_the_file_does_not_hold_is_refused(folder):
    harmless = (folder / "saved_model.pb").read_bytes()
    for name in ("WriteFile", "__inference_of_the_process_1"):

        def change(graph, name=name):
            node = serving(graph).node_def.add(name="call", op="PartitionedCall")
            node.attr["f"].func.name = name

        (folder / "saved_model.pb").write_bytes(harmless)
        refuse(changed(folder, change), f"must hold the functions that it calls.*'{name}'")

        def branches(graph, name=name):
            node = serving(graph).node_def.add(name="call", op="StatelessCase")
            node.attr["branches"].list.func.add(name=name)

        (folder / "saved_model.pb").write_bytes(harmless)
        refuse(changed(folder, branches), f"must hold the functions that it calls.*'{name}'")


def test_links_to_folders_and_too_many_files_are_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (folder / "variables").symlink_to(tmp_path / "elsewhere")
    refuse(folder, "must hold no links to folders. Received: 'variables'")
    (folder / "variables").unlink()
    monkeypatch.setattr(saved_models, "MAX_FILES", 0)
    refuse(folder, "must hold at most 0 files")


def test_files_behind_links_are_read_as_stores_of_models_keep_them(folder):
    (folder / "saved_model.pb").rename(folder.parent / "blob")
    (folder / "saved_model.pb").symlink_to("../blob")
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
    loaded = model_files.load(tmp_path / "model")
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
    y = ops.concatenate([
        ops.clip(x, 0.1, 0.9), ops.exp(x), ops.log1p(x), ops.sin(x) ** 2, ops.sort(x, axis=1),
        ops.cumsum(x, axis=2), ops.where(x > 0.5, x, 1 - x), ops.flip(x, 1), ops.roll(x, 2, 1),
        ops.pad(x[:, 1:-1], [[0, 0], [1, 1], [0, 0], [0, 0]], "reflect"), ops.softmax(x, 1),
        ops.max_pool(x, 3, 1, "same"), ops.average_pool(x, 3, 1, "same"), ops.erf(x), ops.gelu(x),
        ops.image.resize(x, (8, 8), "bicubic"), ops.image.gaussian_blur(x), ops.rsqrt(x + 1),
        ops.take(x, [2, 1, 0], axis=3), ops.one_hot(ops.argmax(x, 3), 3), ops.square(ops.floor(x)),
        ops.einsum("bhwc,bhwd->bhwd", x, x), ops.tile(ops.mean(x, 1, keepdims=True), (1, 8, 1, 1)),
        ops.reshape(ops.top_k(ops.reshape(x, (-1, 192)), 192)[0], (-1, 8, 8, 3)),
    ])  # fmt: skip
    return keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(y)))


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
