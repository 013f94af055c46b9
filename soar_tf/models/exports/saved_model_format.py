"""SavedModel folders, for TensorFlow Serving and for TensorFlow programs without Keras."""

from soar_tf.models import saved_model
from soar_tf.models.exports.format import Format


class SavedModelFormat(Format):
    """A SavedModel: gradients pass through it, and it needs neither soar_tf nor Keras."""

    title = "SavedModel"

    def write(self, network, path, *, quantize=None, images=None):
        saved_model.write(network, path)
