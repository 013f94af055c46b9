"""SavedModels are programs: which operations a stranger's may run.

Every operation in the file is looked at, in its graph and in each function of its library, whether
anything seems to call it or not: gradients, signatures and loaded objects have their own ways to
reach one. What is not on a list of operations that do nothing but compute is refused.
"""

import re
from pathlib import Path, PurePosixPath

from soar_tf import files
from soar_tf.errors import InputError
from soar_tf.models.untrusted import printable
from soar_tf.models.untrusted.known_names import TENSORFLOW_OPERATIONS

MAX_GRAPH_BYTES = 2**30
MAX_CONSTANT_BYTES = 2**30
MAX_FILES = 10_000

# Stateful operations that touch nothing but the model's own variables, tables and random numbers.
_STATEFUL_NAMES = """
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
_STATEFUL = frozenset(_STATEFUL_NAMES.split())
# What only the functions that save and restore variables may hold; loading does not run them.
_SAVER = frozenset(
    (
        "MergeV2Checkpoints",
        "RestoreV2",
        "SaveV2",
        "ShardedFilename",
        "StaticRegexFullMatch",
        "StringJoin",
    )
)
# Why an operation is refused, by its name; the first that fits is given.
_REASONS = (
    (r"Write|Save|MergeV2|Summary|DatasetToTFRecord|^Print|Debug", "can write files"),
    (r"PyFunc", "runs Python functions"),
    (r"^Xla|CustomCall|TRTEngine|Delegate", "runs code that it names"),
    (r"^Abort", "ends the process"),
    (
        r"Rpc|DataService|Remote|Send|Recv|Collective|Distributed|Heartbeat|TPU|Nccl",
        "can talk to other machines",
    ),
    (
        r"File(?!name)|Restore|Reader|Dataset|Iterator|DecodeProto|EncodeProto|RecordInput|LoadAndRemap"
        r"|ImmutableConst",
        "can read files",
    ),
)
_UNKNOWN = "is not among those known to be harmless"
_TRUST = "if you trust who made it, allow it by --trust (trust=True)"
# TensorFlow's own names for gradients of this process; others name a Python function.
_GRADIENT = re.compile(r"((Stateful)?PartitionedCall|CustomGradient)-\d+", re.ASCII)


def check(folder, argument):
    """Refuses a SavedModel that could do more than compute.

    Args:
        folder: The SavedModel.
        argument: The argument's name, for the errors.

    Raises:
        InputError: If it cannot be read, is not one that `tf.saved_model.save` of TensorFlow 2
            writes, or holds an operation that is not allowed; the error names the operation.
    """
    name = f"`{argument}` {folder}"
    for foreign in ("saved_model.cpb", "saved_model.pbtxt"):
        if (Path(folder) / foreign).exists():
            raise InputError(f"{name} must hold its graph in saved_model.pb, not {foreign}.")
    _check_files(Path(folder), name)
    try:
        content = files.read_bytes(Path(folder) / "saved_model.pb", name, MAX_GRAPH_BYTES)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from None
    graphs = parse(content, name).meta_graphs
    # Without an object graph, TensorFlow runs whatever operation the file calls its initialization.
    if len(graphs) != 1 or not graphs[0].object_graph_def.nodes:
        raise InputError(
            f"{name} must be one graph with its objects, as tf.saved_model.save of TensorFlow 2 "
            f"writes it; others cannot be checked; {_TRUST}."
        )
    _check_graph(graphs[0], name)


def _check_files(folder, name):
    """Everything in the folder has to be a regular file or a folder."""
    for number, path in enumerate(folder.rglob("*")):
        if number >= MAX_FILES:
            raise InputError(f"{name} must hold at most {MAX_FILES} files.")
        if path.is_dir():
            if path.is_symlink():
                raise InputError(f"{name} must hold no links to folders. Received: {path.name!r}.")
        else:
            try:
                files.open_regular(path, f"{name}: {path.name!r}").close()
            except OSError as error:
                raise InputError(f"{name} cannot be read: {error.strerror}.") from None


def parse(content, name):
    """The `SavedModel` message in a file's bytes."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return saved_model_pb2.SavedModel.FromString(content)
    except (DecodeError, RuntimeError, ValueError):
        raise InputError(f"{name} cannot be read as a SavedModel: DecodeError.") from None


def refusal(op, *, saver=False):
    """Why an operation is not allowed, or `None` if it is.

    Args:
        op: The operation's name.
        saver: Whether it is in a function that only saves or restores variables.
    """
    if op in TENSORFLOW_OPERATIONS or op in _STATEFUL or (saver and op in _SAVER):
        return None
    return next((why for pattern, why in _REASONS if re.search(pattern, op)), _UNKNOWN)


def _check_graph(graph, name):
    from tensorflow.python.framework import op_def_registry  # no public name

    library = graph.graph_def.library
    functions = {f.signature.name for f in library.function}
    own_gradients = {g.registered_op_type for g in library.registered_gradients}
    savers, refused = _savers(graph), []
    _check_assets(graph, name)
    for function, node in _nodes(graph):
        where = f"its function {_short(function)}" if function else "its graph"
        # TensorFlow lets a function's name stand for an operation.
        is_call = node.op in functions and op_def_registry.get(node.op) is None
        reason = None if is_call else refusal(node.op, saver=function in savers)
        if reason is not None:
            refused.append((reason == _UNKNOWN, len(refused), node.op, where, reason))
        for callee in _callees(node):
            if callee not in functions:
                raise InputError(
                    f"{name} must hold the functions that it calls. Received: a call of "
                    f"{callee[:100]!r} ({where})."
                )
        gradient = node.attr["_gradient_op_type"].s.decode(errors="replace")
        if gradient and gradient not in own_gradients and not _GRADIENT.fullmatch(gradient):
            raise InputError(
                f"{name} must hold its gradients. Received: the gradient {gradient[:100]!r} "
                f"({where})."
            )
        _check_constant(node, name)
    if refused:
        _, _, op, where, reason = min(refused)  # the first whose harm is known
        raise InputError(
            f"{name} is a program that holds the operation {printable(op)} ({where}), which "
            f"{reason}; {_TRUST}."
        )


def _nodes(graph):
    """`(function, node)` of every operation in the file; the function is "" for the graph's own."""
    yield from (("", node) for node in graph.graph_def.node)
    for function in graph.graph_def.library.function:
        yield from ((function.signature.name, node) for node in function.node_def)


def _savers(graph):
    """The functions that the graph's saver calls, and nothing else in the file mentions."""
    nodes = {
        _node_name(graph.saver_def.save_tensor_name),
        _node_name(graph.saver_def.restore_op_name),
    }
    called, mentioned = set(), set(_mentioned(graph))
    for function, node in _nodes(graph):
        if not function and node.name in nodes:
            called.update(_callees(node))
        else:
            mentioned.update((node.op, *_callees(node)))
    return called - mentioned


def _mentioned(graph):
    """The names of functions that are used otherwise than by an operation."""
    library, objects = graph.graph_def.library, graph.object_graph_def
    for function in library.function:
        yield from _called_by(function.attr.values())
    yield from (f for g in library.gradient for f in (g.function_name, g.gradient_func))
    yield from (g.gradient_func for g in library.registered_gradients)
    yield from objects.concrete_functions
    for node in objects.nodes:
        yield from node.function.concrete_functions
        yield node.bare_concrete_function.concrete_function_name


def _short(name):
    """A function's name as it was written, without what TensorFlow puts around it."""
    return printable(re.sub(r"^__(inference|forward|backward)_|_\d+$", "", name))


def _node_name(tensor):
    return tensor.lstrip("^").partition(":")[0]


def _callees(node):
    """The functions that an operation is given."""
    return list(_called_by(node.attr.values()))


def _called_by(attributes):
    for value in attributes:
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


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
