"""`.keras` files, for further training."""

from soar_tf.models.exports.format import Format


class KerasFormat(Format):
    """A `.keras` file of the network alone, without the method that trained it."""

    title = "a Keras file"
    suffix = ".keras"

    def write(self, network, path, *, quantize=None, images=None):
        network.save(path)
