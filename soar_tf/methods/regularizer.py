"""Methods whose penalty is apart from their loss, and which part of the training it is taken on."""

import dataclasses

import tensorflow as tf

from soar_tf.errors import check_integer, check_number
from soar_tf.methods.method import UNCLIPPED, Method, Terms
from soar_tf.ops import random


class Regularizer(Method):
    r"""A loss at one point of each example, plus a penalty on the network's derivatives there.

    A subclass implements `curvature_terms`; `terms` decides which passes it shares. If the network
    is one function in both modes and the penalty covers the whole batch, the penalty's pass is the
    loss's as well. Otherwise the loss has a pass in training mode of its own, which is the one that
    updates BatchNorm, and the penalty one in inference mode, on its part of the batch only.

    A subclass whose penalties may be clipped to a constant names the diagnostic `"unclipped"` (see
    `Method.diagnostics`). Where `forward.skip_clipped` asks for it, `curvature_terms` then runs
    twice: unrecorded for every example, and recorded for those whose penalty has a gradient.

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
            `Terms`, with every one of `self.diagnostics`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `curvature_terms`.")

    def terms(self, forward, x, y, *, loss_fn, keys):
        point = self.point(forward, x, y, loss_fn=loss_fn, keys=keys)
        everywhere = self.penalty_fraction == 1.0 and self.penalty_every == 1
        one_function = everywhere and not forward.depends_on_training
        if one_function:
            terms = self._useful_terms(forward, point, y, loss_fn=loss_fn, keys=keys)
            if not self._skips(forward) or _has_the_loss_gradient(forward, terms):
                return terms
            penalty, diagnostics = terms.penalty, terms.diagnostics
        else:
            penalty, diagnostics = self._on_a_part(forward, point, y, loss_fn=loss_fn, keys=keys)
        # The penalty is that of the inference network, as it is before the loss's pass updates it.
        logits = forward.curvature(point) if one_function else forward.training(point)
        return Terms(loss_fn(y, logits), logits, penalty, self.lambda_, diagnostics=diagnostics)

    def _skips(self, forward):
        return forward.skip_clipped and self.clips_examples

    def _useful_terms(self, forward, x, y, *, loss_fn, keys):
        """`curvature_terms`; where clipped examples are skipped, recorded for the others only."""
        if not self._skips(forward):
            return self.curvature_terms(forward, x, y, loss_fn=loss_fn, keys=keys)
        with forward.unrecorded():
            terms = self.curvature_terms(forward, x, y, loss_fn=loss_fn, keys=keys)
        unclipped = terms.diagnostics[UNCLIPPED] > 0.0
        # Not every kernel takes an empty batch: if all are clipped, one row stands in, unused.
        stand_in = tf.range(tf.size(unclipped)) == 0
        rows = tf.where(unclipped | (stand_in & ~tf.reduce_any(unclipped)))[:, 0]
        chosen_x, chosen_y, chosen_keys = (tf.gather(tensor, rows) for tensor in (x, y, keys))
        recorded = self.curvature_terms(
            forward, chosen_x, chosen_y, loss_fn=loss_fn, keys=chosen_keys
        ).penalty
        constant = tf.stop_gradient(terms.penalty)
        useful = tf.where(tf.gather(unclipped, rows), recorded, tf.gather(constant, rows))
        penalty = tf.tensor_scatter_nd_update(constant, rows[:, None], useful)
        return dataclasses.replace(terms, penalty=penalty)

    def _on_a_part(self, forward, x, y, *, loss_fn, keys):
        """Penalty and diagnostics, counted for the examples of the batch that they stand for."""

        def compute():
            rows, counts = choose(keys, self.penalty_fraction)
            chosen = (x, y, keys)
            if rows is not None:
                chosen = [tf.gather(tensor, rows) for tensor in chosen]
            terms = self._useful_terms(forward, *chosen[:2], loss_fn=loss_fn, keys=chosen[2])
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
        nothing = [tf.zeros([tf.shape(keys)[0]])] * (1 + len(self.diagnostics))
        return tf.cond(due, compute, lambda: nothing)


def _has_the_loss_gradient(forward, terms):
    """Whether the gradient of an unrecorded pass's loss is at hand, so that it needs no other."""
    return (
        terms.loss_gradients is not None
        and not forward.needs_recorded_loss
        and not forward.activity_losses(terms.logits)
    )


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
