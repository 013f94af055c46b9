"""The losses that inner steps maximise or penalties bound, if other than the training loss."""

from soar_tf.ops import losses
from soar_tf.validation import check_choice

TRAINING = "training"
_LOSSES = {"cross_entropy": losses.cross_entropy, "margin": losses.margin, "dlr": losses.dlr}
NAMES = (TRAINING, *_LOSSES)


def check(name, argument):
    """Checks the name of an inner loss: `"training"`, `"cross_entropy"`, `"margin"`, `"dlr"`."""
    return check_choice(name, argument, NAMES)


def takes_mixed_labels(*names):
    """Whether inner losses of these names accept labels that are shares of several classes."""
    return all(name == TRAINING for name in names)


def choose(name, loss_fn):
    """The inner loss as a function `(y, logits [B, C]) -> [B]`.

    Args:
        name: One of `NAMES`.
        loss_fn: The training loss, returned for `"training"`.

    Returns:
        `loss_fn`, or a classification loss that accepts integer or one-hot labels.
    """
    if name == TRAINING:
        return loss_fn
    inner = _LOSSES[name]

    def values(y, logits):
        return inner(losses.class_indices(y, logits), logits)

    return values
