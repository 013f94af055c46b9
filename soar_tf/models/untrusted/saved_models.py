"""SavedModels are programs: which operations a stranger's may run.

Every operation that loading or calling the model can reach is looked at, in the graph and in its
function library. Operations without side effects are allowed, but for a few that read files;
operations with side effects are refused, but for those that networks need.
"""

import re
from pathlib import Path, PurePosixPath

from soar_tf.errors import InputError

MAX_GRAPH_BYTES = 2**30
MAX_CONSTANT_BYTES = 2**30

# Stateful operations that touch nothing but the model's own variables, tables and random numbers.
_ALLOWED_NAMES = """
Assert AssignAddVariableOp AssignSubVariableOp AssignVariableOp Case CheckNumerics
CheckNumericsV2 CudnnRNN CudnnRNNBackprop CudnnRNNBackpropV2 CudnnRNNBackpropV3 CudnnRNNV2
CudnnRNNV3 DestroyResourceOp DisableCopyOnRead Empty GuaranteeConst HashTable HashTableV2 If
InitializeTableV2 LookupTableExportV2 LookupTableFindV2 LookupTableImportV2 LookupTableInsertV2
LookupTableRemoveV2 LookupTableSizeV2 Multinomial MutableDenseHashTableV2
MutableHashTableOfTensorsV2 MutableHashTableV2 NonDeterministicInts ParameterizedTruncatedNormal
RandomCrop RandomGamma RandomPoisson RandomPoissonV2 RandomShuffle RandomStandardNormal
RandomUniform RandomUniformInt ReadVariableOp ResourceGather ResourceGatherNd ResourceScatterAdd
ResourceScatterUpdate ResourceStridedSliceAssign RngReadAndSkip RngSkip
SampleDistortedBoundingBox SampleDistortedBoundingBoxV2 StackCloseV2 StackPopV2 StackPushV2
StackV2 StatefulPartitionedCall StatefulStandardNormal StatefulStandardNormalV2
StatefulTruncatedNormal StatefulUniform StatefulUniformFullInt StatefulUniformInt
StatelessRandomGetAlg TensorArrayCloseV3 TensorArrayConcatV3 TensorArrayGatherV3
TensorArrayGradV3 TensorArrayReadV3 TensorArrayScatterV3 TensorArraySizeV3 TensorArraySplitV3
TensorArrayV3 TensorArrayWriteV3 TruncatedNormal VarHandleOp VarIsInitializedOp Variable
VariableShape VariableV2 While
"""
_ALLOWED = frozenset(_ALLOWED_NAMES.split())
# Why an operation is refused, by its name; the first that fits is given. The ones that TensorFlow
# does not mark as stateful (ReadFile, PyFuncStateless, DecodeProtoV2, ...) are refused by this
# table alone.
_REASONS = (
    (r"WriteFile|Save|MergeV2|Summary|DatasetToTFRecord|^Print|Debug", "can write files"),
    (r"PyFunc", "runs Python functions"),
    (r"Rpc|DataService|Remote|Send|Recv|Collective|Distributed|Heartbeat|TPU|Nccl",
     "can talk to other machines"),
    (r"File|Restore|Reader|Dataset|Iterator|DecodeProto|EncodeProto|RecordInput|LoadAndRemap",
     "can read files"),
)  # fmt: skip
_HARMLESS = re.compile(r"(Audio|Histogram|Image|Merge|Scalar|Tensor)Summary(V2)?|Sharded\w+")
_UNKNOWN = "is not among those known to be harmless"


def check(folder, argument):
    """Refuses a SavedModel that could do more than compute.

    Args:
        folder: The SavedModel.
        argument: The argument's name, for the errors.

    Raises:
        InputError: If it cannot be read, or can reach an operation that is not allowed; the
            error names the operation.
    """
    name = f"`{argument}` {folder}"
    for foreign in ("saved_model.cpb", "saved_model.pbtxt"):
        if (Path(folder) / foreign).exists():
            raise InputError(f"{name} must hold its graph in saved_model.pb, not {foreign}.")
    try:
        with open(Path(folder) / "saved_model.pb", "rb") as file:
            content = file.read(MAX_GRAPH_BYTES + 1)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from None
    for graph in parse(content, name).meta_graphs:
        _check_assets(graph, name)
        for where, node in reachable_nodes(graph):
            if (reason := refusal(node.op)) is not None:
                raise InputError(
                    f"{name} is a program that holds the operation {node.op} ({where}), which "
                    f"{reason}; if you trust who made it, allow it by --trust (trust=True)."
                )
            _check_constant(node, name)


def parse(content, name):
    """The `SavedModel` message in a file's bytes."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    if len(content) > MAX_GRAPH_BYTES:
        raise InputError(f"{name}: saved_model.pb must have at most {MAX_GRAPH_BYTES} bytes.")
    try:
        return saved_model_pb2.SavedModel.FromString(content)
    except (DecodeError, RuntimeError, ValueError):
        raise InputError(f"{name} cannot be read as a SavedModel: DecodeError.") from None


def refusal(op):
    """Why an operation is not allowed, or `None` if it is."""
    from tensorflow.python.framework import op_def_registry  # no public name tells statefulness

    definition = op_def_registry.get(op)
    if op in _ALLOWED or _HARMLESS.fullmatch(op):
        return None
    reason = next((why for pattern, why in _REASONS if re.search(pattern, op)), None)
    if definition is None or definition.is_stateful or op.startswith("_"):
        return reason or _UNKNOWN
    return reason


def reachable_nodes(graph):
    """`(where, node)` of all that loading and calling a meta graph can run.

    The functions that save and restore its variables are left out, if nothing else calls them:
    loading does not use them.
    """
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    top = _called_nodes(graph, functions)
    waiting = [name for node in top for name in _callees(node, functions)]
    waiting += [name for name in graph.object_graph_def.concrete_functions if name in functions]
    waiting += [g.gradient_func for g in graph.graph_def.library.gradient]
    yield from (("its graph", node) for node in top)
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            yield f"its function {_short(name)}", node
            waiting.extend(_callees(node, functions))


def _short(name):
    """A function's name as it was written, without what TensorFlow puts around it."""
    return re.sub(r"^__(inference|forward|backward)_|_\d+$", "", name)[:100]


def _called_nodes(graph, functions):
    """The graph's own nodes, without the saver's where only a saver would run them."""
    nodes = graph.graph_def.node
    saver = {
        _node_name(tensor)
        for tensor in (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)
    }
    used = {_node_name(name) for node in nodes for name in node.input if node.name not in saver}
    for signature in graph.signature_def.values():
        used |= {_node_name(info.name) for info in signature.outputs.values()}
    used |= {_node_name(n) for c in graph.collection_def.values() for n in c.node_list.value}
    return [node for node in nodes if node.name not in saver - used]


def _node_name(tensor):
    return tensor.lstrip("^").partition(":")[0]


def _callees(node, functions):
    """The functions that a node calls; TensorFlow lets a function's name stand for an op, too."""
    names = [node.op] if node.op in functions else []
    for value in node.attr.values():
        names += [value.func.name, *(function.name for function in value.list.func)]
    return names


def _check_assets(graph, name):
    for asset in graph.asset_file_def:
        path = PurePosixPath(asset.filename)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"{name} must hold its files inside itself. Received: {asset.filename[:100]!r}."
            )


def _check_constant(node, name):
    """A constant of a few bytes may stand for a huge tensor of one value."""
    if node.op != "Const":
        return
    size = 8
    for dimension in node.attr["value"].tensor.tensor_shape.dim:
        size *= max(0, dimension.size)
    if size > MAX_CONSTANT_BYTES:
        raise InputError(f"{name} holds a constant of {size // 8} elements, {node.name[:100]!r}.")
