"""The base class of export formats."""

from soar_tf.errors import InputError
from soar_tf.models import loading
from soar_tf.models.extras import require
from soar_tf.validation import check_choice


class Format:
    """A kind of file or folder that a network can be shipped as.

    A subclass writes a network and reads it back in the format's own runtime, so that every export
    can be compared with the network that it was made of.

    Attributes:
        title: The format's display name.
        suffix: What the file's name must end in; `None` for a folder.
        quantizations: Values of `quantize` beside `None`.
        modules: Modules outside the package's own requirements.
        extra: The extra of this package that installs them.
    """

    title = ""
    suffix = None
    quantizations = ()
    modules = ()
    extra = None

    def write(self, network, path, *, quantize=None, images=None):
        """Writes a network; atomicity is the caller's concern.

        Args:
            network: A `keras.Model` giving logits.
            path: A `pathlib.Path` that does not exist.
            quantize: `None` or one of `quantizations`.
            images: float32 `[N, H, W, C]` in [0, 1], for calibration; `None` if none are needed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `write`.")

    def read(self, path):
        """Reads an export back.

        Args:
            path: What `write` wrote.

        Returns:
            A `soar_tf.models.loaded_model.LoadedModel`.
        """
        return loading.load(path, "export", trust=True)

    def check(self, path, quantize):
        """Refuses a path, a quantization or a machine on which this format cannot be written.

        Raises:
            InputError: If the name has another suffix, the format has no such quantization, or a
                module is missing.
        """
        if self.suffix is not None and path.suffix != self.suffix:
            raise InputError(
                f"`path` must end in {self.suffix} for {self.title}. Received: {path}."
            )
        if quantize is not None:
            if not self.quantizations:
                raise InputError(
                    f"`quantize` is for LiteRT only; {self.title} keeps float32. "
                    f"Received: {quantize!r}."
                )
            check_choice(quantize, "quantize", self.quantizations)
        require(self.modules, self.extra, self.title)
