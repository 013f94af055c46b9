"""mixup: images and labels that are convex combinations of two (arXiv:1710.09412)."""

from soar_tf.validation import check_number


def check_mixup(concentration):
    """Checks mixup's parameter.

    Args:
        concentration: The number a of Beta(a, a), larger than 0, or `None` for no mixup.

    Returns:
        A float or `None`.

    Raises:
        InputError: If it is out of range.
    """
    if concentration is None:
        return None
    return check_number(concentration, "mixup", minimum=0.0, maximum=100.0, exclusive=True)


def draw_shares(seed, epoch, indices, concentration):
    """Draws the share that each example keeps of itself.

    Args:
        seed: The training seed.
        epoch: Int or int64 scalar tensor.
        indices: int64 `[B]`: the examples' positions in the split.
        concentration: The number a of Beta(a, a).

    Returns:
        float32 `[B]` in [0, 1].
    """
    from soar_tf.ops import random

    keys = random.example_keys(seed, indices, step=epoch, purpose="mixup")
    return random.symmetric_beta(keys, concentration)


def mix(images, labels, shares, num_classes):
    """Mixes each example with the one before it in the batch; the first with the last.

    An epoch's order is random, so the neighbour is a random example.

    Args:
        images: float32 `[B, H, W, C]`.
        labels: int64 `[B]`.
        shares: float32 `[B]`, what each example keeps of itself.
        num_classes: Number of classes.

    Returns:
        `(images, labels)`: a tensor like `images`, and each class's share, float32
        `[B, num_classes]`; rows sum to 1.
    """
    import tensorflow as tf

    labels = tf.one_hot(labels, num_classes)

    def mixed(values):
        own = tf.reshape(shares, [-1] + [1] * (len(values.shape) - 1))
        other = tf.roll(values, 1, axis=0)
        # Rounding must not leave the pixel range.
        return tf.clip_by_value(other + own * (values - other), 0.0, 1.0)

    return mixed(images), mixed(labels)
