"""The seed corpus: small valid and odd inputs for every parser, under tests/fuzz/corpus/PARSER/.

python tests/fuzz/seeds.py     writes the binary seeds anew
"""

import json
import pathlib

CORPUS = pathlib.Path(__file__).parent / "corpus"


def seeds(parser):
    """The corpus of a parser: a list of bytes, in the order of the files' names."""
    return [path.read_bytes() for path in sorted((CORPUS / parser).iterdir())]


TEXT = {
    "number": ["8/255", "0.03", "-1e-3", "nan", "1e999999999", " 4 / 255 ", "1/0", "٣", "", "1_0"],
    "attack": [
        "pgd20",
        "pgd:steps=50,epsilon=4/255",
        "l2pgd100",
        "autoattack",
        "pgd20:steps",
        "fab-t:epsilon=0.1,norm=l2",
        "square:,",
        "pgd99999999999999999999",
        "cw:=",
        ":",
    ],
    "method_arg": ["epsilon=8/255", "lambda_=0.5", "steps=7", "=", "a=b=c", "norm=l2"],
    "image_size": ["32x32", "8", "0x1", "x", "8X16", "1x2x3", "²x2"],
    "toml": [
        'method = "soar"\nepochs = 3\n',
        '[method_args]\nepsilon = "8/255"\nsteps = 2\n',
        'dataset = "npz:a.npz"\nimage_size = [8, 8]\n',
        "a = [" * 50,
        "epochs = 1e400\n",
        "seed = 99999999999999999999999\n",
    ],
    "hosts": ["a:2222,b:2222", "[::1]:80", "a:0", "a", ",", "a:1,a:1", "a:99999"],
    "tf_config": [
        json.dumps({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}),
        '{"cluster": {"chief": "a:1"}, "task": {"type": "chief", "index": true}}',
        "[" * 2000,
        '{"cluster": [], "task": {}}',
        '{"cluster": {"worker": [[1]]}, "task": {"type": "worker", "index": 0}}',
    ],
    "schedule": [
        "ramp(0, 0.5, epochs=5)",
        "stairs(.1, .4, steps=3)",
        "ramp(",
        "ramp()",
        "0.5",
        "stairs(1e999)",
        "ramp(0, 1, epochs=0)",
    ],
    "card": [
        json.dumps(
            {
                "format": 1,
                "name": "digits-mlp",
                "config": {"method": "soar"},
                "weights": "00",
                "files": {"model.keras": 3},
                "report": {
                    "attacks": [{"name": "pgd20", "robust_accuracy": 0.5}],
                    "dataset": "digits",
                    "n": 4,
                    "clean_accuracy": 1.0,
                    "worst_case_interval": [0.2, 0.8],
                    "reliability": "reliable",
                },
            }
        ),
        '{"format": 2, "name": "a", "config": {}, "weights": "", "report": {}}',
        '{"format": 1, "name": "a", "config": {}, "weights": "", "report": {"attacks": [1]}}',
    ],
    "manifest": ['{"status": "complete", "versions": {}}', "[]", "null", "[" * 2000, "{}"],
    "keras_config": [
        json.dumps(
            {
                "module": "keras",
                "class_name": "Sequential",
                "registered_name": None,
                "config": {
                    "name": "s",
                    "layers": [
                        {
                            "module": "keras.layers",
                            "class_name": "Dense",
                            "config": {"units": 3},
                            "registered_name": None,
                        },
                        {
                            "module": "keras.layers",
                            "class_name": "Lambda",
                            "registered_name": None,
                            "config": {
                                "name": "f",
                                "function": {
                                    "module": "builtins",
                                    "class_name": "function",
                                    "config": "relu",
                                    "registered_name": "function",
                                },
                            },
                            "inbound_nodes": [
                                {
                                    "args": [{"class_name": "__keras_tensor__", "config": {}}],
                                    "kwargs": {"training": True},
                                }
                            ],
                        },
                    ],
                },
            }
        ),
        '{"class_name": "function", "module": "keras.config", "config": "set_max_epochs"}',
        '{"inbound_nodes": [[["a", 0, 0, {"b": "c"}]]]}',
        '{"class_name": "__lambda__"}',
        '{"class_name": "__numpy__", "config": {"value": [1], "dtype": "float32"}}',
    ],
    "progress": [
        json.dumps({"phase": 1, "epoch": 2, "rows": [{"phase": "soar", "epoch": 1, "loss": 2.5}]}),
        json.dumps(
            {
                "phase": 0,
                "epoch": 1,
                "rows": [],
                "environments": [{"keras": "3.15.1"}],
                "selection": {"wait": 0, "best": 0.5, "best_epoch": 0, "stopped": False},
            }
        ),
        '{"phase": -1, "epoch": 1e99}',
        '{"phase": true}',
        "{}",
    ],
    "checkpoint_name": [
        "001-000002.0123456789abcdef.weights.h5",
        "../../a.weights.h5",
        "001-000002.weights.h5",
        "999999999-000000.0123456789abcdef.weights.h5",
    ],
}


def _write():
    for parser, texts in TEXT.items():
        (CORPUS / parser).mkdir(parents=True, exist_ok=True)
        for i, text in enumerate(texts):
            (CORPUS / parser / f"{i:02d}.txt").write_text(text, encoding="utf-8")
    _write_archives()
    _write_saved_model()
    _write_evaluation_state()
    _write_shipped()


def _write_shipped():
    import struct
    import sys

    import numpy as np

    import soar_tf

    network = soar_tf.networks.mlp(input_shape=(2, 2, 1), num_classes=2, width=0.02)
    for parser, format, suffix in (("litert", "litert", "tflite"), ("onnx", "onnx", "onnx")):
        (CORPUS / parser).mkdir(exist_ok=True)
        path = CORPUS / parser / f"mlp.{suffix}"
        path.unlink(missing_ok=True)
        soar_tf.export(network, path, format)
    sys.path.insert(0, str(CORPUS.parents[1] / "models"))
    import torch_writer

    (CORPUS / "torch").mkdir(exist_ok=True)
    arrays = {"conv1.weight": np.ones((2, 1, 1, 1), "float32"), "step": np.array(3)}
    torch_writer.save(CORPUS / "torch" / "small.pt", {"epoch": 1, "state_dict": arrays})
    (CORPUS / "safetensors").mkdir(exist_ok=True)
    header = b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    content = struct.pack("<Q", len(header)) + header + b"\0" * 8
    (CORPUS / "safetensors" / "small.safetensors").write_bytes(content)


def _write_archives():
    import numpy as np

    import soar_tf

    for parser in ("npz", "keras"):
        (CORPUS / parser).mkdir(parents=True, exist_ok=True)
    arrays = {"x_test": np.zeros((2, 4, 4, 1), "u1"), "y_test": np.arange(2)}
    np.savez(CORPUS / "npz" / "stored.npz", **arrays)
    np.savez_compressed(CORPUS / "npz" / "deflated.npz", **arrays)
    soar_tf.networks.mlp(input_shape=(4, 4, 1), num_classes=2, width=0.01).save(
        CORPUS / "keras" / "mlp.keras"
    )


def _write_evaluation_state():
    """`version1.state` beside it is a file of version 0.1, whose form nothing writes any more."""
    import numpy as np

    import soar_tf

    (CORPUS / "evaluation_state").mkdir(parents=True, exist_ok=True)
    path = CORPUS / "evaluation_state" / "mlp.state"
    path.unlink(missing_ok=True)
    network = soar_tf.networks.mlp(input_shape=(2, 2, 1), num_classes=2, width=0.01)
    x, y = np.full((3, 2, 2, 1), 0.5, "float32"), np.arange(3) % 2
    soar_tf.evaluate(network, x, y, ["fgsm"], state=path, keep=2)


def _write_saved_model():
    import tempfile

    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 1])])
    def serve(x):
        return tf.reshape(x, (-1, 16))

    module = tf.Module()
    module.serve = serve
    folder = pathlib.Path(tempfile.mkdtemp())
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    (CORPUS / "saved_model").mkdir(parents=True, exist_ok=True)
    content = (folder / "saved_model.pb").read_bytes()
    (CORPUS / "saved_model" / "linear.pb").write_bytes(content)


if __name__ == "__main__":
    _write()
