"""Detects gradient masking during training."""

import warnings

import tensorflow as tf

from soar_tf.attacks import as_logits_fn
from soar_tf.callbacks.epoch_callback import EpochCallback
from soar_tf.evaluation import PerExample
from soar_tf.ops import gradients, losses, norms
from soar_tf.validation import check_number


class GradientMasking(EpochCallback):
    """Logs signs of gradient masking after each epoch, and warns about them.

    A network masks its gradients if attacks fail because they lack a useful gradient, and not
    because there are no adversarial examples. The callback writes

    * `val_top_probability`: mean probability of the predicted class;
    * `val_gradient_norm`: mean l2 norm of the cross-entropy's input gradient;
    * `val_zero_gradients`: share of the examples whose gradient is zero or not finite;
    * `val_fgsm_gap`: accuracy under FGSM minus accuracy under PGD.

    It warns, once per `fit` for each sign, if (1) more than `max_zero_gradients` of the gradients
    are zero; (2) the mean top probability reaches `max_confidence` while PGD leaves more than half
    of the clean accuracy (a saturated softmax hides the gradient); (3) one step breaks at least
    `tolerance` more examples than many steps; (4) FGSM leaves at least `max_gap` more examples than
    PGD (robustness to one step only: catastrophic overfitting, or label leaking). The absence of
    warnings proves nothing.

    Args:
        data: Validation data in [0, 1]: arrays `(x, y)`, a `tf.data.Dataset` of batches, or a
            `soar_tf.datasets.Split`.
        epsilon: Radius of the attacks, in units of the pixel range; `None` for that of the
            `RobustModel`'s method, or 8/255.
        norm: `"linf"` or `"l2"`; `None` for that of the method, or `"linf"`.
        steps: Number of PGD steps.
        every: Number of epochs between measurements.
        limit: Number of examples, from the start; `None` for all.
        seed: Seed of the attacks' noise.
        batch_size: Number of examples to process at once.
        max_zero_gradients: Share in [0, 1], see above.
        max_confidence: Probability, see above.
        tolerance: Share in [0, 1], see above.
        max_gap: Share in [0, 1], see above.

    Raises:
        InputError: For an argument out of range, or data that do not match the model.

    Example:

    >>> import keras, soar_tf
    >>> digits = soar_tf.datasets.load("digits")["train"].take(64)
    >>> model = soar_tf.networks.mlp(width=0.1)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> masking = soar_tf.callbacks.GradientMasking(digits, epsilon=0.1, steps=5)
    >>> history = model.fit(digits.float_images(), digits.labels, verbose=0, callbacks=[masking])
    >>> history.history["val_zero_gradients"][0] < 0.1
    True
    """

    def __init__(
        self,
        data,
        epsilon=None,
        norm=None,
        steps=20,
        every=1,
        limit=256,
        seed=0,
        *,
        batch_size=256,
        max_zero_gradients=0.1,
        max_confidence=0.99,
        tolerance=0.05,
        max_gap=0.4,
    ):
        options = {"epsilon": epsilon, "norm": norm}
        arguments = "".join(f",{k}={v}" for k, v in options.items() if v is not None)
        attacks = ["fgsm:" + arguments[1:], f"pgd:steps={steps}{arguments}"]
        super().__init__(data, attacks, every=every, limit=limit, seed=seed, batch_size=batch_size)
        limits = {
            "max_zero_gradients": max_zero_gradients,
            "max_confidence": max_confidence,
            "tolerance": tolerance,
            "max_gap": max_gap,
        }
        for name, value in limits.items():
            setattr(self, name, check_number(value, name, minimum=0.0, maximum=1.0))
        self._signs = None
        self._warned = set()

    def prepare(self, network):
        logits_fn = as_logits_fn(network)

        def signs(x, y, keys):
            def values(point):
                logits = logits_fn(point)
                return losses.cross_entropy(y, logits), logits

            _, gradient, logits = gradients.input_gradient(values, x, has_aux=True)
            size = norms.norm(gradient, "l2")
            usable = tf.math.is_finite(size) & (norms.norm(gradient, "linf") > 0.0)
            top = tf.reduce_max(tf.nn.softmax(logits), axis=1)
            return {"top": top, "size": size, "unusable": tf.cast(~usable, tf.float32)}

        self._signs = PerExample(signs, batch_size=self.batch_size)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._warned = set()

    def measure(self, epoch):
        signs = self._signs(self.x, self.y)
        result = self.evaluator(self.x, self.y)
        fgsm, pgd = (attack.robust_accuracy for attack in result.attacks)
        results = {
            "val_top_probability": float(signs["top"].mean()),
            "val_gradient_norm": float(signs["size"].mean()),
            "val_zero_gradients": float(signs["unusable"].mean()),
            "val_fgsm_gap": fgsm - pgd,
        }
        self._warn(epoch, results, pgd, result.clean_accuracy)
        return results

    def _warn(self, epoch, results, pgd, clean):
        top, zero = results["val_top_probability"], results["val_zero_gradients"]
        gap = results["val_fgsm_gap"]
        advice = "verify with apgd-dlr, square and transfer attacks"
        messages = {
            "zero": zero > self.max_zero_gradients
            and f"{zero:.1%} of the input gradients are zero, so attacks on the cross-entropy "
            f"cannot move; {advice}",
            "confidence": (top >= self.max_confidence and pgd > clean / 2)
            and f"the mean top probability is {top:.4f} and PGD leaves {pgd:.1%}, which a "
            f"saturated softmax explains as well as robustness does; {advice}",
            "one step": gap < -self.tolerance
            and f"FGSM breaks {-gap:.1%} more examples than PGD, although many steps should beat "
            f"one; {advice}",
            "gap": gap > self.max_gap
            and f"FGSM leaves {gap:.1%} more examples than PGD: the network is robust to one step "
            "only (catastrophic overfitting or label leaking)",
        }
        for kind, message in messages.items():
            if message and kind not in self._warned:
                self._warned.add(kind)
                warnings.warn(f"Gradient masking, epoch {epoch + 1}: {message}.", stacklevel=4)
