"""Writes `soar_tf/models/untrusted/known_names.py`: what a stranger's network may be made of.

    python tools/known_names.py            compares the file with the installed Keras and TensorFlow
    python tools/known_names.py --write    writes it anew

Run it after an update, and look at each name that is new before it is committed: the rules below
know what is harmful among the names of the versions that they were written for.
"""

import argparse
import importlib
import inspect
import pathlib
import sys
import textwrap

PLACE = pathlib.Path(__file__).parents[1] / "soar_tf" / "untrusted" / "known_names.py"


def _words(text):
    return text.split()


# Layers that load files, run foreign code or are no layers.
NO_LAYERS = _words("""
FeatureSpace FlaxLayer InputSpec IntegerLookup JaxLayer Layer StringLookup TFSMLayer
TextVectorization TorchModuleWrapper Wrapper
""")
# What calls a function that it is given, or is not a function of tensors.
NO_FUNCTIONS = _words("""
associative_scan cond custom_gradient deserialize fori_loop get jvp map scan serialize switch
vectorize vectorized_map while_loop
""")
NO_OPERATIONS = _words("""
AssociativeScan Cond ForiLoop Function JVP Map Operation Scan Switch VectorizedMap WhileLoop
""")
CLASS_MODULES = _words("""
constraints initializers losses metrics optimizers optimizers.schedules regularizers
""")
FUNCTION_MODULES = _words("activations losses metrics ops ops.image ops.linalg ops.nn ops.numpy")
OPERATION_MODULES = _words("core einops image linalg math nn numpy")
FIXED_CLASSES = {
    "keras": "DTypePolicy Model Sequential",
    "keras.dtype_policies": "DTypePolicy DTypePolicyMap FloatDTypePolicy",
    "keras.models": "Model Sequential",
    "keras.random": "SeedGenerator",
    "keras.src.applications.convnext": "LayerScale StochasticDepth",
    "keras.src.models.functional": "Functional",
}

# Families of TensorFlow operations that compute tensors from tensors.
FAMILIES = _words("""
array bitwise control_flow functional image linalg list manip math nn special_math spectral
stateless_random stateless_random_v2
""")
# Attributes of text that choose among ways of computing; any other may name a file or a machine.
TEXT = frozenset(
    _words("""
align bad_indices_policy config config_proto data_format dst_format equation executor_type
fill_mode frame_name interpolation kernel_type message method mode noise padding round_mode
src_format
""")
)
# `Abort` ends the process, `ImmutableConst` maps any file into memory. The others, and what the
# prefixes say, are found in obsolete, quantized, sparse or object detection graphs only.
NO_OPS = _words("""
Abort CombinedNonMaxSuppression Dequantize DrawBoundingBoxes DrawBoundingBoxesV2 EditDistance For
GenerateBoundingBoxProposals ImmutableConst ParallelConcat SymbolicGradient
""")
NO_PREFIXES = tuple(
    _words("Batch Debug Inplace NonMaxSuppression Quantize Ragged Ref Requant Sparse")
)
BUT_OPS = _words("""
BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpace BatchToSpaceND
SparseSoftmaxCrossEntropyWithLogits
""")


def keras_classes():
    """Maps modules to the names of the classes that a configuration may name there."""
    import keras

    found = {module: names.split() for module, names in FIXED_CLASSES.items()}
    layers = _members(keras.layers, inspect.isclass)
    found["keras.layers"] = [name for name in layers if name not in NO_LAYERS]
    for module in CLASS_MODULES:
        names = _members(importlib.import_module(f"keras.{module}"), inspect.isclass)
        found[f"keras.{module}"] = [name for name in names if name[0].isupper()]
    for module in OPERATION_MODULES:
        place = f"keras.src.ops.{module}"
        found[place] = _operations(importlib.import_module(place))
    return found


def _operations(module):
    from keras.src.ops.operation import Operation

    return [
        name
        for name in _members(module, inspect.isclass)
        if issubclass(getattr(module, name), Operation)
        and getattr(module, name).__module__ == module.__name__
        and name not in NO_OPERATIONS
    ]


def keras_functions():
    """Maps modules to the names of the functions that a configuration may name there."""
    found = {}
    for module in FUNCTION_MODULES:
        place = importlib.import_module(f"keras.{module}")
        found[f"keras.{module}"] = [
            name for name in _members(place, inspect.isfunction) if name not in NO_FUNCTIONS
        ]
    return found


def _members(module, kind):
    return [n for n in sorted(dir(module)) if not n.startswith("_") and kind(getattr(module, n))]


def tensorflow_operations():
    """The stateless operations that compute tensors from tensors."""
    import tensorflow as tf
    from tensorflow.python.framework import op_def_registry

    found = []
    for name in dir(tf.raw_ops):
        definition = None if name.startswith("_") else op_def_registry.get(name)
        if definition is not None and _computes(name, definition):
            found.append(name)
    return found


def _computes(name, definition):
    import tensorflow as tf

    function = inspect.unwrap(getattr(tf.raw_ops, name))
    family = function.__module__.rpartition(".gen_")[2].removesuffix("_ops")
    family = family.replace("_ops_v2", "_v2")
    text = {a.name for a in definition.attr if a.type in ("string", "list(string)")}
    strings = [
        arg
        for arg in (*definition.input_arg, *definition.output_arg)
        if arg.type == tf.string.as_datatype_enum
    ]
    obsolete = name.startswith(NO_PREFIXES) and name not in BUT_OPS
    return (
        family in FAMILIES
        and not definition.is_stateful
        and text <= TEXT
        and not strings
        and not obsolete
        and name not in NO_OPS
    )


def text():
    """The file's text for the installed versions."""
    import keras
    import tensorflow as tf

    return _TEXT.format(
        keras=keras.__version__,
        tensorflow=tf.__version__,
        classes=_table(keras_classes()),
        functions=_table(keras_functions()),
        operations=_wrapped(" ".join(tensorflow_operations()), ""),
    )


def _table(names):
    rows = (f"{module}: {' '.join(sorted(names[module]))}" for module in sorted(names))
    return "\n".join(_wrapped(row, "    ") for row in rows)


def _wrapped(line, indent):
    return textwrap.fill(
        line, 99, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


_TEXT = '''"""What a stranger's network may be made of: names of what does nothing but compute.

Written by tools/known_names.py, which has the rules, with Keras {keras} and TensorFlow
{tensorflow}. A name that a later version adds is refused until somebody has looked at it.
"""


def _table(text):
    """`{{module: names}}` of lines `module: name name`; indented lines continue the one before."""
    rows = (row.partition(": ") for row in text.strip().replace("\\n    ", " ").splitlines())
    return {{module: frozenset(names.split()) for module, _, names in rows}}


KERAS_CLASSES = _table("""
{classes}
""")

KERAS_FUNCTIONS = _table("""
{functions}
""")

_OPERATIONS = """
{operations}
"""
TENSORFLOW_OPERATIONS = frozenset(_OPERATIONS.split())
'''


def main():
    """Writes the file, or says whether it is that of the installed versions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        PLACE.write_text(text(), encoding="utf-8")
    elif PLACE.read_text(encoding="utf-8") != text():
        sys.exit(f"{PLACE.name} is not that of the installed Keras and TensorFlow.")


if __name__ == "__main__":
    main()
