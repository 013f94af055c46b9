"""A model file that was read: its logits function, and what is known about it."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model to evaluate.

    Attributes:
        name: What it was loaded from.
        logits_fn: Callable `[B, H, W, C] -> [B, num_classes]`, float32, in inference mode.
        input_shape: `(H, W, C)`; entries are `None` where any size is taken.
        num_classes: Number of classes.
        network: The `keras.Model`, or `None` for a SavedModel.
        config: The configuration of a run or a zoo network as a dictionary, `{}` otherwise.
        artefact: The `soar_tf.models.artefacts.Artefact` of a LiteRT or ONNX file, which has no
            gradients; `None` for others.
    """

    name: str
    logits_fn: Callable
    input_shape: tuple
    num_classes: int
    network: object = None
    config: dict = dataclasses.field(default_factory=dict)
    artefact: object = None
