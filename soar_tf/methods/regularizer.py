"""Methods with a separate penalty, which may be computed on part of the training only."""

import dataclasses

import tensorflow as tf

from soar_tf.methods.method import UNCLIPPED, Method, Terms
from soar_tf.ops import random
from soar_tf.validation import check_integer, check_number


class Regularizer(Method):
    r"""A loss at one point of each example, plus a penalty on the network's derivatives there.

    A subclass implements `curvature_terms`; `terms` decides which passes are shared. If the network
    is the same function in both modes and the penalty covers the whole batch, loss and penalty
    share one pass. Otherwise the loss takes a separate pass in training mode, which updates
    BatchNorm, and the penalty one in inference mode, on its part of the batch only.

    A subclass whose penalties may be clipped to a constant declares the diagnostic `"unclipped"`
    (see `Method.diagnostics`). If `forward.skip_clipped` is true, `curvature_terms` then runs
    twice: unrecorded for every example, and recorded for those whose penalty has a gradient.

    Args:
        lambda_: Weight of the penalty, at least 0.
        penalty_fraction: Share f of the batch, in (0, 1], that the penalty is computed on. Of B
            examples, `n = ceil(f B)` are drawn by their noise keys, one at random from each of n
            groups of neighbours, and each counts for its group: the expected penalty is exactly
            that of the whole batch. The choice does not depend on the number of replicas if n is a
            multiple of it.
        penalty_every: The penalty is computed only in every k-th step, by the step counter, and
            multiplied by k there, so its mean over steps is that of k = 1. A `penalty_clipnorm`
            acts on the multiplied gradient.
    """

    has_penalty = True
    second_order = True

    def __init__(self, lambda_, penalty_fraction=1.0, penalty_every=1):
        self.lambda_ = check_number(lambda_, "lambda_", minimum=0.0)
        self.penalty_fraction = check_number(
            penalty_fraction, "penalty_fraction", minimum=0.0, maximum=1.0, exclusive=True
        )
        self.penalty_every = check_integer(penalty_every, "penalty_every", minimum=1)

    def point(self, forward, x, y, *, loss_fn, keys):
        """The point of loss and penalty, `[B, ...]`, without gradient. By default, x itself."""
        return x

    def curvature_terms(self, forward, x, y, *, loss_fn, keys):
        """The terms at `x` (the result of `point`), computed in inference mode.

        Args:
            forward: The `Forward`, see `Method.terms`.
            x: `[B, ...]`, the points.
            y: Labels `[B]`.
            loss_fn: The per-example loss.
            keys: The examples' noise keys.

        Returns:
            `Terms`, with all of `self.diagnostics`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `curvature_terms`.")

    def terms(self, forward, x, y, *, loss_fn, keys):
        point = self.point(forward, x, y, loss_fn=loss_fn, keys=keys)
        whole_batch = self.penalty_fraction == 1.0 and self.penalty_every == 1
        one_function = whole_batch and not forward.depends_on_training
        if one_function:
            terms = self._recorded_terms(forward, point, y, loss_fn=loss_fn, keys=keys)
            if not self._skips_clipped(forward) or _has_loss_gradient(forward, terms):
                return terms
            penalty, diagnostics = terms.penalty, terms.diagnostics
        else:
            penalty, diagnostics = self._partial_penalty(
                forward, point, y, loss_fn=loss_fn, keys=keys
            )
        # The penalty is that of the inference network before the loss's pass updates it.
        logits = forward.curvature(point) if one_function else forward.training(point)
        return Terms(loss_fn(y, logits), logits, penalty, self.lambda_, diagnostics=diagnostics)

    @staticmethod
    def losses_and_logits(forward, y, loss_fn):
        """The function that penalties differentiate: `[B, ...] -> (losses [B], logits [B, C])`."""

        def values(x):
            logits = forward.curvature(x)
            return loss_fn(y, logits), logits

        return values

    def _skips_clipped(self, forward):
        return forward.skip_clipped and self.clips_examples

    def _recorded_terms(self, forward, x, y, *, loss_fn, keys):
        """`curvature_terms`, recorded only for unclipped examples if the others are skipped."""
        if not self._skips_clipped(forward):
            return self.curvature_terms(forward, x, y, loss_fn=loss_fn, keys=keys)
        with forward.unrecorded():
            terms = self.curvature_terms(forward, x, y, loss_fn=loss_fn, keys=keys)
        unclipped = terms.diagnostics[UNCLIPPED] > 0.0
        # Not every kernel accepts an empty batch: if all are clipped, the first row is a dummy.
        dummy = tf.range(tf.size(unclipped)) == 0
        rows = tf.where(unclipped | (dummy & ~tf.reduce_any(unclipped)))[:, 0]
        chosen_x, chosen_y, chosen_keys = (tf.gather(tensor, rows) for tensor in (x, y, keys))
        recorded = self.curvature_terms(
            forward, chosen_x, chosen_y, loss_fn=loss_fn, keys=chosen_keys
        ).penalty
        constant = tf.stop_gradient(terms.penalty)
        updates = tf.where(tf.gather(unclipped, rows), recorded, tf.gather(constant, rows))
        penalty = tf.tensor_scatter_nd_update(constant, rows[:, None], updates)
        return dataclasses.replace(terms, penalty=penalty)

    def _partial_penalty(self, forward, x, y, *, loss_fn, keys):
        """Penalty and diagnostics, each counted for the examples that it represents."""

        def compute():
            rows, counts = choose(keys, self.penalty_fraction)
            chosen = (x, y, keys)
            if rows is not None:
                chosen = [tf.gather(tensor, rows) for tensor in chosen]
            terms = self._recorded_terms(forward, *chosen[:2], loss_fn=loss_fn, keys=chosen[2])
            values = [terms.penalty, *(terms.diagnostics[name] for name in self.diagnostics)]
            values = [self.penalty_every * value for value in values]
            if rows is None:
                return values
            size = tf.shape(keys)[:1]
            return [tf.scatter_nd(rows[:, None], counts * value, size) for value in values]

        values = compute() if self.penalty_every == 1 else self._when_due(forward, compute, keys)
        penalty, *rest = (tf.ensure_shape(value, keys.shape[:1]) for value in values)
        return penalty, dict(zip(self.diagnostics, rest, strict=True))

    def _when_due(self, forward, compute, keys):
        due = tf.equal(forward.step % self.penalty_every, 0)
        zeros = [tf.zeros([tf.shape(keys)[0]])] * (1 + len(self.diagnostics))
        return tf.cond(due, compute, lambda: zeros)


def _has_loss_gradient(forward, terms):
    """Whether the loss's gradient is known, so that an unrecorded pass need not be repeated."""
    return (
        terms.loss_gradients is not None
        and not forward.needs_recorded_loss
        and not forward.activity_losses(terms.logits)
    )


def choose(keys, fraction):
    """Draws examples from a batch: one from each of `ceil(fraction * B)` groups of neighbours.

    Args:
        keys: uint32 tensor `[B, 2]`, the examples' noise keys, which determine the choice.
        fraction: Share of the batch, in (0, 1].

    Returns:
        `(rows, counts)`: positions in the batch, int32 `[n]`, and how many examples each
        represents, float32 `[n]`; `(None, None)` for the whole batch.
    """
    if fraction == 1.0:
        return None, None
    batch = keys.shape[0] or tf.shape(keys)[0]
    position = tf.range(batch, dtype=tf.int64)
    batch = tf.cast(batch, tf.int64)
    # 0.1 is not a binary fraction: without the tolerance, 0.1 of ten examples could be two.
    n = tf.cast(tf.math.ceil(tf.cast(batch, tf.float64) * fraction - 1e-9), tf.int64)
    group = position * n // batch
    noise = tf.cast(random.derive(keys, "penalty_fraction")[:, 0], tf.int64)
    order = tf.argsort(group * 2**32 + noise, stable=True)
    starts = (tf.range(n + 1, dtype=tf.int64) * batch + n - 1) // n
    counts = tf.cast(starts[1:] - starts[:-1], tf.float32)
    return tf.gather(order, starts[:-1]), counts
