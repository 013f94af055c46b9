"""Classification losses, one value per example: labels `[B]` and logits `[B, C]` -> `[B]`."""

import tensorflow as tf

from soar_tf.ops import gradients


def label_logit(labels, logits):
    """The logit of each example's label, `[B]`."""
    return tf.reduce_sum(_one_hot(labels, logits) * logits, axis=1)


def class_indices(labels, logits):
    """Integer classes, int `[B]`, from labels in any form that classification losses accept.

    Args:
        labels: int tensor `[B]` or `[B, 1]`, or one-hot `[B, C]`.
        logits: float tensor `[B, C]`.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == logits.shape[1]:
        return tf.argmax(labels, axis=1)
    return tf.cast(tf.reshape(labels, [-1]), tf.int64)


def cross_entropy(labels, logits):
    """Cross-entropy from logits.

    Args:
        labels: int tensor `[B]`.
        logits: float tensor `[B, C]`.

    Returns:
        float tensor `[B]`.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops.losses import cross_entropy
    >>> float(cross_entropy(tf.constant([0]), tf.constant([[0.0, 0.0]]))[0])  # log 2
    0.6931471824645996
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def margin(labels, logits):
    """Largest logit of the other classes minus the label's: positive exactly when misclassified."""
    other_logits = logits - 1e9 * _one_hot(labels, logits)
    return tf.reduce_max(other_logits, axis=1) - label_logit(labels, logits)


def kl_divergence(logits_p, logits_q):
    r"""$\mathrm{KL}(p \| q)$ of two softmax distributions, differentiable in both."""
    log_p, log_q = tf.nn.log_softmax(logits_p), tf.nn.log_softmax(logits_q)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=1)


def weighted_variance(weights, values):
    """Variance over the classes, with weights that sum to 1.

    Args:
        weights: float tensor `[B, C]`.
        values: float tensor `[B, C]`.

    Returns:
        float tensor `[B]`.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops.losses import weighted_variance
    >>> weighted_variance(tf.constant([[0.5, 0.5]]), tf.constant([[1.0, 3.0]])).numpy()
    array([1.], dtype=float32)
    """
    mean = tf.reduce_sum(weights * values, axis=1, keepdims=True)
    return tf.reduce_sum(weights * tf.square(values - mean), axis=1)


def quadratic_bound(loss_fn, logits, logits_adv):
    r"""Upper bound of the cross-entropy at other logits (arXiv:2601.13645).

    $$\ell(z) + \nabla\ell(z)^\top (z' - z) + \tfrac14 \|z' - z\|_2^2 \ \ge\ \ell(z')$$

    because the Hessian of cross-entropy with respect to the logits, $\mathrm{diag}(p) - p p^\top$
    for every label, has no eigenvalue above 1/2.

    Args:
        loss_fn: Cross-entropy with each example's label, callable `[B, C] -> [B]`.
        logits: float tensor `[B, C]`, z.
        logits_adv: float tensor `[B, C]`, z'.

    Returns:
        float tensor `[B]`, differentiable in both logits.

    Example:

    >>> import tensorflow as tf
    >>> from soar_tf.ops import losses
    >>> loss_fn = lambda z: losses.cross_entropy(tf.constant([0]), z)
    >>> z, moved = tf.constant([[0.0, 0.0]]), tf.constant([[-1.0, 1.0]])
    >>> float(losses.quadratic_bound(loss_fn, z, moved)[0]), float(loss_fn(moved)[0])
    (2.193147..., 2.126928...)
    """
    loss, slope = gradients.input_gradient(loss_fn, logits)
    change = logits_adv - logits
    linear = tf.reduce_sum(slope * change, axis=1)
    return loss + linear + 0.25 * tf.reduce_sum(tf.square(change), axis=1)


def dlr(labels, logits):
    r"""Difference of logits ratio (Croce and Hein 2020, arXiv:2003.01690, eq. 6).

    $$-\frac{z_y - \max_{i \ne y} z_i}{z_{(1)} - z_{(3)} + 10^{-12}}$$

    The ratio makes the loss invariant to the scale of the logits. With fewer than 3 classes there
    is no third logit, and the margin is returned.
    """
    if logits.shape[-1] < 3:
        return margin(labels, logits)
    top = tf.nn.top_k(logits, 3).values
    return margin(labels, logits) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(labels, targets, logits):
    r"""Targeted DLR (arXiv:2003.01690, eq. 7).

    $$-\frac{z_y - z_t}{z_{(1)} - (z_{(3)} + z_{(4)})/2 + 10^{-12}}$$

    With fewer than 4 classes, the difference of the two logits is returned.
    """
    difference = label_logit(targets, logits) - label_logit(labels, logits)
    if logits.shape[-1] < 4:
        return difference
    top = tf.nn.top_k(logits, 4).values
    return difference / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def _one_hot(labels, logits):
    return tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
