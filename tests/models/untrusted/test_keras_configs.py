"""`.keras` files whose configuration names more than layers and functions that compute."""

import json

import hostile
import keras
import pytest

from soar_tf import attacks, methods
from soar_tf.errors import InputError
from soar_tf.models.untrusted import keras_configs, keras_files, known_names

calls, function, instance = hostile.calls, hostile.function, hostile.instance
puts, replaces, rewritten = hostile.puts, hostile.replaces, hostile.rewritten


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("honest") / "network.keras"
    hostile.network().save(path)
    return path


def refused(honest, tmp_path, change, message):
    """Whether a changed file is refused, before Keras has seen it."""
    path = rewritten(honest, tmp_path / "hostile.keras", change)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras read it"))
        with pytest.raises(InputError, match=message) as error:
            keras_files.load(path, "`model` it")
    assert "\n" not in str(error.value)


def test_the_honest_file_is_read(honest):
    loaded = keras_files.load(honest, "`model` it")
    assert [layer.name for layer in loaded.layers if layer.name in ("door", "conv")] != []


NOT_KNOWN = "which is not among those known to do nothing but compute"
KERAS_FUNCTIONS = [
    ("keras.layers", "TFSMLayer"),  # loads and runs a program
    ("keras.visualization", "plot_image_gallery"),  # writes a picture
    ("keras.config", "set_max_epochs"),  # ends every later training after one epoch
    ("keras.config", "enable_unsafe_deserialization"),
    ("keras.config", "set_backend"),
    ("keras.utils", "get_file"),
    ("keras.utils", "plot_model"),
    ("keras.utils", "set_random_seed"),
    ("keras.utils", "save_img"),
    ("keras.saving", "load_model"),
    ("keras.models", "clone_model"),
    ("keras.tree", "map_structure"),
    ("keras.callbacks", "CSVLogger"),
    ("keras.export", "ExportArchive"),
    ("keras.ops", "map"),
    ("keras.ops", "while_loop"),
    ("keras.ops", "vectorize"),
    ("keras.activations", "deserialize"),
    ("keras.activations", "get"),
    ("keras.layers", "Dense"),
    ("builtins", "exec"),
    ("builtins", "deserialize"),
    ("builtins", "Adam"),
    ("os", "system"),
    ("keras.src.utils.file_utils", "copy"),
    (None, "relu"),
    (["keras.ops"], "relu"),
]


@pytest.mark.parametrize(("module", "name"), KERAS_FUNCTIONS)
def test_a_function_that_is_not_on_the_list_is_refused(module, name, honest, tmp_path):
    change = calls(function(module, name))
    refused(honest, tmp_path, change, f"names the function .*{name} in layer 'door', which is not")


@pytest.mark.parametrize("layer", ["conv", "top"])
def test_a_function_is_looked_for_everywhere(layer, honest, tmp_path):
    unsafe = function("keras.config", "enable_unsafe_deserialization")
    for key in ("activation", "kernel_regularizer", "kernel_initializer", "dtype", "any_other"):
        refused(honest, tmp_path, puts(layer, key, unsafe), NOT_KNOWN)
    nested = [{"deep": [{"deeper": unsafe}]}]
    refused(honest, tmp_path, puts(layer, "any_other", nested), NOT_KNOWN)


KERAS_CLASSES = [
    ("keras.layers", "TFSMLayer", {"filepath": "program"}),
    ("keras.layers", "StringLookup", {"vocabulary": "/etc/hostname"}),
    ("keras.layers", "IntegerLookup", {"vocabulary": "/etc/hostname"}),
    ("keras.layers", "TextVectorization", {"vocabulary": "/etc/hostname"}),
    ("keras.layers", "TorchModuleWrapper", {"module": "pickled"}),
    ("keras.layers", "JaxLayer", {}),
    ("keras.layers", "FlaxLayer", {}),
    ("keras.utils", "FeatureSpace", {}),
    ("keras.callbacks", "CSVLogger", {"filename": "written"}),
    ("keras.callbacks", "ModelCheckpoint", {"filepath": "written"}),
    ("keras.export", "ExportArchive", {}),
    ("keras.src.export.tfsm_layer", "TFSMLayer", {"filepath": "program"}),
    ("keras.src.ops.core", "Map", {}),
    ("keras.src.ops.core", "WhileLoop", {}),
    ("keras.src.ops.function", "Function", {}),
    ("keras.layers", "NoSuchLayer", {}),
    ("builtins", "Dense", {}),
    ("keras_hub.models", "Backbone", {}),
    ("subprocess", "Popen", {"args": "true"}),
    ("__main__", "Anything", {}),
    ("tensorflow", "__typespec__", {"spec_name": "TensorSpec"}),
    ("builtins", "__bytes__", {"value": "gotcha"}),
    ("keras.layers", "StringLookup", {"vocabulary": ["a"]}),
    ("keras.models", "load_model", {"filepath": "other.keras"}),
    ("keras.src.saving.saving_lib", "H5IOStore", {"root_path": "other.h5"}),
    ("keras.datasets.mnist", "load_data", {}),
    ("keras.distribution", "DataParallel", {}),
    ("keras.tree", "MAP_TO_NONE", {}),
    ("os", "system", {"command": "true"}),
]


@pytest.mark.parametrize("kind", ["__typespec__", "__bytes__", "__lambda__"])
def test_a_registered_name_does_not_hide_what_keras_reads_otherwise(kind, honest, tmp_path):
    hidden = {**instance("soar_tf", kind), "registered_name": "soar_tf>SoftmaxHead"}
    with keras.saving.custom_object_scope({"soar_tf>SoftmaxHead": keras.layers.Softmax}):
        refused(honest, tmp_path, replaces("door", hidden), "names the class|Python code")


@pytest.mark.parametrize(("module", "name", "config"), KERAS_CLASSES)
def test_a_class_that_is_not_on_the_list_is_refused(module, name, config, honest, tmp_path):
    change = replaces("conv", instance(module, name, **config))
    refused(honest, tmp_path, change, f"names the class .*{name} in layer 'conv', which is not")


WRAPPED = instance("keras.layers", "TFSMLayer", filepath="program", name="inside")


@pytest.mark.parametrize(
    "wrapper",
    [
        instance("keras.layers", "TimeDistributed", layer=WRAPPED),
        instance("keras.layers", "Bidirectional", layer=WRAPPED, backward_layer=None),
        instance("keras.layers", "SpectralNormalization", layer=WRAPPED),
        instance("keras.layers", "RNN", cell=WRAPPED),
        instance("keras.layers", "Pipeline", layers=[WRAPPED]),
        instance("keras", "Sequential", layers=[WRAPPED]),
        instance("keras.src.models.functional", "Functional", layers=[WRAPPED]),
        instance("soar_tf", "RobustModel", network=WRAPPED)
        | {"registered_name": "soar_tf>RobustModel"},
        instance("keras.layers", "Dense", units=3) | {"build_config": {"input_shape": WRAPPED}},
        instance("keras.layers", "Dense", units=3) | {"compile_config": {"optimizer": WRAPPED}},
    ],
    ids=lambda wrapper: wrapper["class_name"],
)
def test_a_class_is_looked_for_inside_of_others(wrapper, honest, tmp_path):
    message = "names the class keras.layers.TFSMLayer in layer 'inside'"
    refused(honest, tmp_path, replaces("conv", wrapper), message)


def test_a_class_where_a_function_belongs_is_refused(honest, tmp_path):
    for called in (
        instance("keras.layers", "Dense", units=3),
        instance("keras.initializers", "Zeros"),
        "relu",
        None,
        ["relu"],
    ):
        refused(honest, tmp_path, calls(called), "must hold a function where one is called")
    registered = function("soar_tf.attacks.pgd", "soar_tf>PGD")
    refused(
        honest, tmp_path, calls(registered), "Received: the class 'soar_tf>PGD' in layer 'door'"
    )
    for key in ("mask", "output_shape"):
        change = puts("door", key, instance("keras.layers", "Dense", units=3))
        refused(honest, tmp_path, change, f"Received: `{key}` of layer 'door'")


def test_text_where_a_tensor_belongs_is_refused(honest, tmp_path):
    path = str(tmp_path / "written")
    relu = function("keras.ops", "relu")
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": ["input_layer", 0, 0]}}
    cut = {"class_name": "__slice__", "config": {"start": path, "stop": None, "step": None}}
    for arguments in ([path], [tensor, path], [tensor, [[path]]], [tensor, {"a": path}], [cut]):
        refused(honest, tmp_path, calls(relu, *arguments), f"Received: the text '{path}' for layer")
    for kind in (WRAPPED, relu, {"class_name": "__bytes__", "config": {"value": path}}):
        refused(honest, tmp_path, calls(relu, tensor, kind), "with tensors and numbers. Received")
    for named in ({"inputs": path}, {"inputs": tensor, "mask": [path]}):
        refused(honest, tmp_path, calls(relu, **named), "Received: the text")


def test_a_call_without_a_tensor_is_refused(honest, tmp_path):
    ones = {"class_name": "__numpy__", "config": {"value": [[1.0]], "dtype": "float32"}}
    for arguments in ([3.0], [ones], [[]]):
        change = calls(function("keras.ops", "tile"), *arguments)
        refused(honest, tmp_path, change, "must call its layers with tensors. Received: none")


def test_arrays_whose_type_asks_for_memory_are_refused(honest, tmp_path):
    for kind in ("__numpy__", "__tensor__"):
        for dtype in ("U1000000000", "object", None, ["float32"], "float32,float32"):
            array = {"class_name": kind, "config": {"value": ["a"], "dtype": dtype}}
            change = puts("conv", "any_other", array)
            refused(honest, tmp_path, change, "must hold arrays of numbers")


def test_code_is_refused(honest, tmp_path):
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None}}
    refused(honest, tmp_path, calls(code), "must hold no Python code. Received: a Python lambda")
    types = {"class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess"}
    refused(honest, tmp_path, puts("conv", "any_other", types), "class subprocess.__typespec__")


def test_an_entry_of_the_older_format_without_modules_is_refused(honest, tmp_path):
    """Keras reads these by other, older code."""

    def change(config, layers):
        del layers["conv"]["module"]

    refused(honest, tmp_path, change, "must name its classes and their modules")

    def disguised(config, layers):
        del layers["conv"]["module"]
        layers["conv"] |= {"class_name": "TFSMLayer", "registered_name": "soar_tf>SOARModel"}

    refused(honest, tmp_path, disguised, "must name its classes and their modules")


def test_calls_of_the_older_format_are_read_and_judged(honest, tmp_path):
    def older(*arguments):
        def change(config, layers):
            layers["door"]["inbound_nodes"] = [[["input_layer", 0, 0, *arguments]]]

        return change

    keras.utils.clear_session()
    config = json.loads(hostile.network().to_json())
    name = config["config"]["input_layers"][0]
    keras_configs.check({**config, "inbound_nodes": [[[name, 0, 0, {}]]]}, "it")
    refused(honest, tmp_path, older({"path": "/etc/hostname"}), "the text '/etc/hostname'")
    for wrong in ([["input", 0]], [["input", "0", 0]], ["input"], "input", 3):

        def change(config, layers, wrong=wrong):
            layers["door"]["inbound_nodes"] = [wrong]

        refused(honest, tmp_path, change, "with tensors and numbers|the text|none for")


def test_messages_hold_no_control_characters(honest, tmp_path):
    change = replaces("conv", instance("keras.layers\x1b[2J\n", "Evil\r\x07"))
    refused(honest, tmp_path, change, r"the class keras.layers\?\[2J\?.Evil\?\? in layer 'conv'")


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b"[" * 100_000, b'{"class_name": ["Dense"]}', b'{"class_name": {}}']
)
def test_other_configurations_are_refused_in_one_sentence(content, honest, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", content)
    with pytest.raises(InputError) as error:
        keras_files.load(tmp_path / "a.keras", "`model` a")
    assert "\n" not in str(error.value)


def test_methods_and_attacks_are_not_made_from_other_classes():
    for deserialize in (methods.deserialize, attacks.deserialize):
        with pytest.raises(InputError, match="names the class keras.layers.TFSMLayer"):
            deserialize(instance("keras.layers", "TFSMLayer", filepath="program"))
        with pytest.raises(InputError, match="names the function keras.utils.get_file"):
            deserialize(instance("keras.layers", "Dense", x=function("keras.utils", "get_file")))
    with pytest.raises(InputError, match="names the class keras.layers.TFSMLayer"):
        methods.get("sum", methods=[instance("keras.layers", "TFSMLayer", filepath="program")])


def test_every_name_on_the_list_is_what_it_is_taken_for():
    """Names that this Keras has not, or not yet, are left out."""
    import importlib
    import inspect

    count = 0
    classes = (known_names.KERAS_CLASSES, inspect.isclass)
    functions = (known_names.KERAS_FUNCTIONS, inspect.isfunction)
    for table, kind in (classes, functions):
        for module, names in table.items():
            place = importlib.import_module(module)
            present = [getattr(place, name) for name in names if hasattr(place, name)]
            assert all(kind(item) for item in present), module
            count += len(present)
    assert count > 900


def test_nothing_of_keras_is_on_the_list_unseen():
    """A layer that a later Keras adds is refused until tools/known_names.py has been run."""
    table = known_names.KERAS_CLASSES["keras.layers"]
    assert "Dense" in table and "TFSMLayer" not in table and "StringLookup" not in table
    for names in (*known_names.KERAS_CLASSES.values(), *known_names.KERAS_FUNCTIONS.values()):
        assert not names & {"deserialize", "get", "map", "WhileLoop", "load_model", "TFSMLayer"}
