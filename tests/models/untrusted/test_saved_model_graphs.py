"""SavedModels whose harmful operations are hidden: in gradients, savers, and unused functions."""

import re

import numpy as np
import pytest
import tensorflow as tf
from test_saved_models import SPEC, changed, refuse, save

from soar_tf.models import loading
from soar_tf.models.untrusted import saved_models


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
    # It really would have written, at the first gradient.
    loaded = loading.load(tmp_path / "m", trust=True)
    x = tf.zeros((1, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loaded.logits_fn(x)
    assert not target.exists()
    tape.gradient(y, x)
    assert target.read_text() == "gotcha"
    refuse(changed(tmp_path / "m", hide), "holds the operation WriteFile")


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
    loaded = loading.load(tmp_path / "m")
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
        harmless, target = (folder / "saved_model.pb").read_bytes(), tmp_path / "written"
        for kind in ("save", "restore"):
            (folder / "saved_model.pb").write_bytes(harmless)
            changed(folder, lambda graph, kind=kind: write(saver(graph, kind), target))
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

    uses = (call, by_name, as_object, as_bare_function, as_function, as_gradient)
    uses += (as_older_gradient, as_attribute, in_the_graph, in_another_saver)

    @pytest.mark.parametrize("use", uses, ids=lambda use: use.__name__)
    def test_another_use_of_them_is_refused(self, use, folder):
        refuse(changed(folder, lambda graph: use(self, graph)), r"\(its function _traced_save\)")

    def test_a_serving_function_that_is_called_a_saver_is_refused(self, tmp_path):
        what = {"tensor_names": ["a"], "shape_and_slices": [""], "tensors": [tf.ones(1)]}
        folder = save(tmp_path / "m", lambda: [tf.raw_ops.SaveV2(prefix="p", **what)])

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
