"""The base class of every method: what is minimised, per example."""

import dataclasses

import tensorflow as tf

from soar_tf.errors import check_number
from soar_tf.serialization import Configurable


@dataclasses.dataclass(frozen=True)
class Terms:
    """What a method computes for a batch.

    Attributes:
        loss: `[B]`, the per-example loss.
        logits: `[B, C]`, the logits that training metrics are computed from.
        penalty: `[B]`, the per-example regularizer before its weight, or `None`.
        penalty_weight: The regularizer's weight: a float.
        loss_gradients: The gradient of `sum(loss)` by each of the network's trainable weights, if
            the method had it at no extra pass; `None` if it had not.
    """

    loss: tf.Tensor
    logits: tf.Tensor
    penalty: tf.Tensor | None = None
    penalty_weight: float = 0.0
    loss_gradients: list | None = None


class Method(Configurable):
    """A training objective. It holds hyper-parameters only, no state and no weights.

    A subclass implements `terms`, in one file, and is registered by one line in
    `soar_tf/methods/__init__.py`. Its constructor's arguments are its hyper-parameters: they are
    what `soar-tf train --method-arg` sets and what `soar-tf list methods` prints.

    Attributes:
        has_penalty: Whether `terms` gives a penalty, which `fit` then logs.
        second_order: Whether the penalty's gradient takes second derivatives of the network, so
            that every layer must have exact ones.
        penalty_clipnorm: If not `None`, the penalty's parameter gradient is clipped to this l2
            norm by itself, before the loss's gradient is added.
        starts_from_standard: Whether the method fine-tunes a network trained in the standard
            way, so that the command line trains one first.
    """

    has_penalty = False
    second_order = False
    penalty_clipnorm = None
    starts_from_standard = False

    def terms(self, forward, x, y, *, loss_fn, keys):
        """Computes the objective's terms; called inside the train step's outer gradient tape.

        Args:
            forward: A `soar_tf.methods.Forward`: the network, with one function a mode.
            x: float32 tensor `[B, ...]`, pixels in [0, 1].
            y: Labels, in the form that `loss_fn` takes.
            loss_fn: Per-example loss, `(y, logits [B, C]) -> [B]`.
            keys: uint32 tensor `[B, 2]`, this step's noise key of each example.

        Returns:
            `Terms`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `terms`.")


def optional_number(value, argument, **limits):
    """`check_number` for arguments that may be `None` (also as the string `"none"`)."""
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    return check_number(value, argument, **limits)
