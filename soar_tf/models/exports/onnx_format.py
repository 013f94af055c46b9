"""ONNX files, for every runtime that reads them."""

from soar_tf.models.exports.format import Format


class ONNXFormat(Format):
    """An ONNX file in float32; images are `[B, H, W, C]`, as everywhere in this package."""

    title = "ONNX"
    suffix = ".onnx"
    modules = ("onnx", "tf2onnx", "onnxruntime")
    extra = "onnx"

    def write(self, network, path, *, quantize=None, images=None):
        import tensorflow as tf

        # Keras exports only networks that have been called.
        sides = [side or 32 for side in network.input_shape[1:]]
        network(tf.zeros((1, *sides)), training=False)
        network.export(str(path), format="onnx", verbose=False)
