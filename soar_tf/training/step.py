"""What some examples of a batch add to a train step: the method's terms and their gradients."""

import tensorflow as tf

from soar_tf import methods
from soar_tf.ops import norms
from soar_tf.training.micro_batches import Part

# The name of the diagnostic that compares the gradients at both ends of a crafting step.
ALIGNMENT = "alignment"


def part(
    network,
    method,
    loss_fn,
    rows,
    *,
    step,
    xla,
    skip,
    factor,
    batch,
    reuse=True,
    keep_points=False,
    align=False,
):
    """The `Part` of some examples in the step of a batch.

    Args:
        network: The network, whose trainable weights the gradients are taken with respect to.
        method: The `soar_tf.methods.Method`, as it is in this step.
        loss_fn: The per-example loss.
        rows: `(x, y, sample_weight, keys, *points)` of the examples; `sample_weight` may be
            `None`. Points that were searched before take the place of the method's searches.
        step: The training step, an integer scalar tensor.
        xla: Whether XLA compiles the step.
        skip: Whether the method skips passes that only clipped penalties need.
        factor: What gradients are multiplied by: the optimizer's loss scale.
        batch: Number of examples in the whole batch.
        reuse: Whether the given points are taken: a bool or a scalar tensor.
        keep_points: Whether the `Part` holds the points that the method searched.
        align: Whether the diagnostics hold the alignment, see `RobustModel.log_alignment`.
    """
    x, y, sample_weight, keys, *points = rows
    share = tf.cast(tf.shape(x)[0], tf.float32) / tf.cast(batch, tf.float32)
    clips = method.penalty_clipnorm is not None
    with tf.GradientTape(persistent=clips or skip) as tape:
        forward = methods.Forward(
            network,
            xla=xla,
            step=step,
            tape=tape,
            skip_clipped=skip,
            needs_recorded_loss=sample_weight is not None,
            points=points,
            reuse=reuse,
            watches=align,
        )
        terms = method.terms(forward, x, y, loss_fn=loss_fn, keys=keys)
        objective = share * _weighted_mean(terms.loss, sample_weight)
        added = forward.added_losses(terms.logits)
        regularization = None
        if added:
            added = share * tf.add_n(added)
            objective += added
            regularization = added * factor
        penalty = mean_penalty = None
        if terms.penalty is not None:
            mean_penalty = share * tf.reduce_mean(terms.penalty)
            penalty = share * terms.penalty_weight * _weighted_mean(terms.penalty, sample_weight)
        total = objective if penalty is None else objective + penalty
        scaled = [None if p is None else p * factor for p in (objective, penalty, total)]
    known = None
    if terms.loss_gradients is not None and sample_weight is None:
        # The loss's gradient came with the input gradient: no second backward pass.
        known = terms.loss_gradients, factor / tf.cast(batch, tf.float32)
    # One backward pass gives the weights' gradient and that of the points trained on.
    watched = [] if known is not None else forward.watched
    count, sources = len(forward.weights), [*forward.weights, *(point for point, _ in watched)]
    gradients = _gradients(tape, sources, scaled, known, regularization, clips, skip)
    diagnostics = {k: share * tf.reduce_mean(terms.diagnostics[k]) for k in method.diagnostics}
    if watched:
        diagnostics[ALIGNMENT] = share * _alignment(watched, gradients[0][count:])
        gradients = [None if each is None else each[:count] for each in gradients]
    points = tuple(forward.searched) if keep_points else ()
    return Part(objective, penalty, mean_penalty, diagnostics, terms.logits, *gradients, points)


def _gradients(tape, weights, scaled, known, regularization, clips, skip):
    """The gradient by each trainable weight, and the penalty's if it is clipped by itself.

    `known`, if it is known already, is the gradient of the objective without `regularization`, up
    to a factor, and that factor. Where examples are skipped, the objective is not recorded then.
    """
    objective, penalty, total = scaled
    if penalty is None or not (clips or (skip and known is not None)):
        return tape.gradient(total, weights), None
    penalty_gradients = tape.gradient(penalty, weights)
    if known is None:
        gradients = tape.gradient(objective, weights)
    else:
        values, share = known
        gradients = [None if g is None else tf.convert_to_tensor(g) * share for g in values]
        if regularization is not None:
            gradients = add(gradients, tape.gradient(regularization, weights))
    if clips:
        return gradients, penalty_gradients
    return add(gradients, penalty_gradients), None


def _alignment(watched, gradients):
    """The mean cosine of the gradients at the points and those that the steps to them followed."""
    cosines = [
        norms.cosine(slope, tf.zeros_like(slope) if gradient is None else gradient)
        for (_, slope), gradient in zip(watched, gradients, strict=True)
    ]
    return tf.reduce_mean(tf.stack(cosines))


def _weighted_mean(values, sample_weight):
    """Sum of the weighted values over the number of examples, as Keras's losses reduce."""
    if sample_weight is not None:
        values *= tf.reshape(tf.cast(sample_weight, values.dtype), tf.shape(values))
    return tf.reduce_mean(values)


def add(first, second):
    """Sums two lists of gradients, in which `None` stands for zero."""
    return [
        b if a is None else a if b is None else a + tf.convert_to_tensor(b)
        for a, b in zip(first, second, strict=True)
    ]
