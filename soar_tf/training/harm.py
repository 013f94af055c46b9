"""What `fit` says when a penalty does harm that its own logs do not show."""

import warnings

import keras
import numpy as np

from soar_tf.methods import proposal
from soar_tf.methods.method import UNCLIPPED
from soar_tf.methods.schedules import last_value
from soar_tf.methods.soar import SOAR
from soar_tf.models.inference import as_logits_fn
from soar_tf.training import first_look

_SAMPLE = 256
_FALL = 0.10
_FEW_UNCLIPPED = 0.05


class HarmWatch(keras.callbacks.Callback):
    """Warns, once each, of a penalty that harms a training.

    * After the first epoch: fewer than 5 % of the examples were below the norm's clip. The others
      have no gradient from the penalty.
    * After any epoch: the network classifies at least 10 points fewer of 256 images right than
      before the training. It looks at the validation data if there are some, else at the training
      data, both as far as they are arrays or a `tf.data.Dataset`.

    For SOAR both name the values that `soar_tf.methods.propose` finds.

    Args:
        x, y, validation_data: As `keras.Model.fit` takes them.
    """

    def __init__(self, x, y, validation_data):
        super().__init__()
        self._training = first_look.sample(x, y)
        judged = self._training
        if validation_data is not None:
            parts = validation_data if isinstance(validation_data, tuple) else (validation_data,)
            judged = first_look.sample(*parts[:2])
        self._judged = judged if judged[0] is not None else self._training
        self._before, self._told = None, set()

    def on_train_begin(self, logs=None):
        self._before = self._accuracy()

    def on_epoch_end(self, epoch, logs=None):
        share = (logs or {}).get(UNCLIPPED)
        if epoch == 0 and share is not None and share < _FEW_UNCLIPPED:
            self._tell(
                "clip",
                f"The penalty's norm is at its clip for {100 * (1 - share):.0f} % of the examples, "
                "which have no gradient from the penalty then.",
            )
        now = self._accuracy()
        if self._before is not None and self._before - now >= _FALL - 1e-9:
            self._tell(
                "accuracy",
                f"Clean accuracy on {len(self._rows()[0])} images fell from "
                f"{100 * self._before:.0f} to {100 * now:.0f} % in {epoch + 1} epochs: the penalty "
                "does harm.",
            )

    def _rows(self):
        x, y = self._judged
        return (None, None) if x is None or y is None else (x[:_SAMPLE], y[:_SAMPLE])

    def _accuracy(self):
        x, y = self._rows()
        if x is None:
            return None
        y = np.asarray(y)
        y = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y))
        logits = np.asarray(as_logits_fn(self.model.network)(x.astype("float32")))
        return float((logits.argmax(axis=1) == y).mean())

    def _tell(self, kind, message):
        if kind in self._told:
            return
        self._told.add(kind)
        warnings.warn(f"{message}{self._advice()}", stacklevel=3)

    def _advice(self):
        method = self.model.method
        x, y = self._training
        if not isinstance(method, SOAR) or x is None or np.ndim(y) != 1:
            return ""
        epsilon = last_value(method.epsilon)
        found = proposal.propose(self.model.network, x, y, epsilon=epsilon, norm=method.norm)
        return f" From {found.images} images, soar_tf.methods.propose proposes {found}."


def watched(model, x, y, validation_data, callbacks):
    """`fit`'s callbacks, with a `HarmWatch` for methods with a penalty.

    Args:
        model: The `RobustModel`.
        x, y, validation_data, callbacks: As `keras.Model.fit` takes them.
    """
    # Keras takes a CallbackList as it is, and it has no way to add to it.
    if not model.method.has_penalty or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    watch = HarmWatch(x, y, validation_data)
    return [*(callback for callback in given if callback is not None), watch]
