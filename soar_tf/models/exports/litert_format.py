"""LiteRT files (`.tflite`), for phones, browsers and microcontrollers."""

import tempfile

from soar_tf.models import saved_model
from soar_tf.models.exports.format import Format


class LiteRTFormat(Format):
    """A LiteRT file in float32, float16 or int8; pixels and logits stay float32 in all three.

    `"float16"` stores the weights in half precision. `"int8"` quantizes weights and activations
    after training, with the range of each activation taken from calibration images; an operation
    without an int8 version stays in float32. A gradient cannot be taken through either file.
    """

    title = "LiteRT"
    suffix = ".tflite"
    quantizations = ("float16", "int8")
    modules = ("ai_edge_litert",)
    extra = "litert"

    def write(self, network, path, *, quantize=None, images=None):
        import tensorflow as tf

        # By way of a SavedModel, which freezes the weights: LiteRT's variables are state.
        with tempfile.TemporaryDirectory() as folder:
            saved_model.write(network, folder)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            converter.experimental_enable_resource_variables = False
            _set_quantization(converter, quantize, images)
            path.write_bytes(converter.convert())


def _set_quantization(converter, quantize, images):
    import tensorflow as tf

    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.representative_dataset = lambda: ([image[None]] for image in images)
