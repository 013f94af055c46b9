"""Methods whose penalty is apart from their loss, and which part of the training it is taken on."""

import tensorflow as tf

from soar_tf.methods.method import Method, Terms
from soar_tf.ops import random
from soar_tf.validation import check_integer, check_number


class Regularizer(Method):
    r"""A loss at one point of each example, plus a penalty on the network's derivatives there.

    A subclass implements `curvature_terms`; `terms` decides which passes it shares. If the network
    is one function in both modes and the penalty covers the whole batch, the penalty's pass is the
    loss's as well. Otherwise the loss has a pass in training mode of its own, which is the one that
    updates BatchNorm, and the penalty one in inference mode, on its part of the batch only.

    Args:
        lambda_: Weight of the penalty, at least 0.
        penalty_fraction: Share f of the batch, in (0, 1], that the penalty is computed on. Of B
            examples, `n = ceil(f B)` are drawn, one at random from each of n runs of neighbours,
            by the examples' own noise keys, and each counts for its run: the expected penalty is
            exactly that of the whole batch. Which ones are drawn does not depend on the number of
            replicas if n is a multiple of it.
        penalty_every: The penalty is computed in every k-th step only, by the step counter, and
            multiplied by k there: its mean over steps is that of k = 1. A `penalty_clipnorm` acts
            on the multiplied gradient.
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
        """The point that loss and penalty are taken at, `[B, ...]`, without gradient: x itself."""
        return x

    def curvature_terms(self, forward, x, y, *, loss_fn, keys):
        """The terms at `x` (what `point` gave), from passes in inference mode.

        Args:
            forward: The `Forward`, see `Method.terms`.
            x: `[B, ...]`, the points.
            y: Labels `[B]`.
            loss_fn: The per-example loss.
            keys: The examples' noise keys.

        Returns:
            `Terms`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `curvature_terms`.")

    def terms(self, forward, x, y, *, loss_fn, keys):
        point = self.point(forward, x, y, loss_fn=loss_fn, keys=keys)
        everywhere = self.penalty_fraction == 1.0 and self.penalty_every == 1
        if everywhere and not forward.depends_on_training:
            return self.curvature_terms(forward, point, y, loss_fn=loss_fn, keys=keys)

        def penalty():
            rows, counts = choose(keys, self.penalty_fraction)
            chosen = [tensor if rows is None else tf.gather(tensor, rows)
                      for tensor in (point, y, keys)]  # fmt: skip
            terms = self.curvature_terms(forward, *chosen[:2], loss_fn=loss_fn, keys=chosen[2])
            counted = self.penalty_every * terms.penalty
            if rows is None:
                return counted
            counted *= counts
            return tf.scatter_nd(rows[:, None], counted, tf.shape(keys)[:1])

        values = self._when_due(forward.step, penalty, tf.shape(keys)[0])
        values = tf.ensure_shape(values, keys.shape[:1])
        # The penalty is that of the inference network, as it is before the loss's pass updates it.
        logits = forward.training(point)
        return Terms(loss_fn(y, logits), logits, values, self.lambda_)

    @staticmethod
    def losses_and_logits(forward, y, loss_fn):
        """The function that penalties differentiate: `[B, ...] -> (losses [B], logits [B, C])`."""

        def values(x):
            logits = forward.curvature(x)
            return loss_fn(y, logits), logits

        return values

    def _when_due(self, step, penalty, count):
        if self.penalty_every == 1:
            return penalty()
        due = tf.equal(step % self.penalty_every, 0)
        return tf.cond(due, penalty, lambda: tf.zeros([count]))


def choose(keys, fraction):
    """Draws examples from a batch: one from each of `ceil(fraction * B)` runs of neighbours.

    Args:
        keys: uint32 tensor `[B, 2]`, the examples' noise keys, which decide.
        fraction: Share of the batch, in (0, 1].

    Returns:
        `(rows, counts)`: positions in the batch, int32 `[n]`, and how many examples each stands
        for, float32 `[n]`; `(None, None)` for the whole batch.
    """
    if fraction == 1.0:
        return None, None
    batch = keys.shape[0] or tf.shape(keys)[0]
    position = tf.range(batch, dtype=tf.int64)
    batch = tf.cast(batch, tf.int64)
    # Of a share such as 0.1, which is no binary fraction, ten examples are one part.
    n = tf.cast(tf.math.ceil(tf.cast(batch, tf.float64) * fraction - 1e-9), tf.int64)
    run = position * n // batch
    lot = tf.cast(random.derive(keys, "penalty_fraction")[:, 0], tf.int64)
    order = tf.argsort(run * 2**32 + lot, stable=True)
    starts = (tf.range(n + 1, dtype=tf.int64) * batch + n - 1) // n
    counts = tf.cast(starts[1:] - starts[:-1], tf.float32)
    return tf.gather(order, starts[:-1]), counts
