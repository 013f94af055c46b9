"""tf.data pipelines: whole batches are gathered, cast and augmented at once.

Everything random is a pure function of (seed, epoch, example), through `soar_tf.ops.random`, so a
pipeline that starts at epoch k yields the very bits that an uninterrupted one yields from there on.
"""

from soar_tf.datasets import cutouts, mixing
from soar_tf.errors import InputError
from soar_tf.validation import check_integer


def training_pipeline(
    split,
    batch_size,
    *,
    seed,
    epochs,
    initial_epoch=0,
    initial_step=0,
    augment=False,
    cutout=None,
    mixup=None,
    num_classes=None,
):
    """Builds the batches of epochs `initial_epoch` to `epochs - 1`, each in an order of its own.

    The remainder of an epoch that fills no batch is dropped (other examples in every epoch); a
    split smaller than `batch_size` gives one batch with all of it.

    Args:
        split: A `Split`.
        batch_size: Examples per batch, at least 1.
        seed: Int >= 0: the training seed.
        epochs: Number of the last epoch plus one.
        initial_epoch: The epoch to start at.
        initial_step: Steps of that epoch to leave out, fewer than it has; none of their images is
            read.
        augment: Whether to crop at random out of zero padding (4 pixels for sides of 32 or more,
            else an eighth of the side, at least 1) and to mirror half of the images.
        cutout: Side in pixels of a grey square that is laid over each image, at most the images'
            shorter side, or `None` (DeVries and Taylor 2017, arXiv:1708.04552). Its centre is a
            uniform pixel, so it may be cut by the border. It comes after cropping and mirroring.
        mixup: The number a, in (0, 100], or `None`: each image, and its label, becomes a
            combination of itself and another one of the batch, in shares that are drawn from
            Beta(a, a) (Zhang et al. 2018, arXiv:1710.09412). It comes last.
        num_classes: Number of classes, which `mixup` needs.

    Returns:
        `(dataset, steps_per_epoch)`: a finite `tf.data.Dataset` of `(x, y)`, float32
        `[B, H, W, C]` in [0, 1] and int64 `[B]`, for `fit(..., steps_per_epoch=...)`. With `mixup`
        labels are the classes' shares, float32 `[B, num_classes]`.

    Raises:
        InputError: If an argument is out of range or the split is empty.

    Example:

    >>> from soar_tf import datasets
    >>> digits = datasets.load("digits")
    >>> train, steps = datasets.training_pipeline(digits["train"], 128, seed=0, epochs=2)
    >>> steps, train.element_spec[0].shape
    (9, TensorShape([128, 8, 8, 1]))
    """
    import tensorflow as tf

    _check_split(split)
    seed = check_integer(seed, "seed", minimum=0)
    initial_epoch = check_integer(initial_epoch, "initial_epoch", minimum=0)
    epochs = check_integer(epochs, "epochs", minimum=initial_epoch + bool(initial_step))
    batch_size = min(check_integer(batch_size, "batch_size", minimum=1), len(split))
    cutout = cutouts.check_cutout(cutout, split.images.shape[1:3])
    mixup = mixing.check_mixup(mixup)
    if mixup is not None:
        num_classes = check_integer(num_classes, "num_classes", minimum=1)
    steps = len(split) // batch_size
    initial_step = check_integer(initial_step, "initial_step", minimum=0)
    if initial_step >= steps:
        raise InputError(
            f"`initial_step` must be smaller than the {steps} steps of an epoch. "
            f"Received: {initial_step}."
        )
    images, labels = _tensors(split)

    def batches(epoch):
        order = epoch_order(len(split), seed, epoch)[: steps * batch_size]
        rows = tf.data.Dataset.from_tensor_slices(tf.reshape(order, [steps, batch_size]))
        if initial_step:
            rows = rows.skip(initial_step * tf.cast(epoch == initial_epoch, tf.int64))
        return rows.map(lambda row: (epoch, row))

    def gather(epoch, indices):
        x = tf.gather(images, indices)
        if augment:
            x = augment_batch(x, *draw_augmentation(seed, epoch, indices, x.shape[1:3]))
        x = _to_float(x)
        if cutout is not None:
            x = cutouts.cut_out(x, *cutouts.draw_cutout(seed, epoch, indices, x.shape[1:3]), cutout)
        y = tf.gather(labels, indices)
        if mixup is not None:
            x, y = mixing.mix(x, y, mixing.draw_shares(seed, epoch, indices, mixup), num_classes)
        return x, y

    dataset = tf.data.Dataset.range(initial_epoch, epochs).flat_map(batches)
    dataset = dataset.apply(
        tf.data.experimental.assert_cardinality((epochs - initial_epoch) * steps - initial_step)
    )
    return _run(dataset, gather), steps


def evaluation_pipeline(split, batch_size):
    """Builds the batches of one pass in the split's own order; the last may be smaller.

    Args:
        split: A `Split`.
        batch_size: Examples per batch, at least 1.

    Returns:
        A `tf.data.Dataset` of `(x, y)`: float32 `[B, H, W, C]` in [0, 1], int64 `[B]`.

    Raises:
        InputError: If `batch_size` is out of range or the split is empty.

    Example:

    >>> from soar_tf import datasets
    >>> test = datasets.evaluation_pipeline(datasets.load("digits")["test"], 150)
    >>> [len(y) for _, y in test]
    [150, 150, 100]
    """
    import tensorflow as tf

    _check_split(split)
    batch_size = check_integer(batch_size, "batch_size", minimum=1)
    images, labels = _tensors(split)

    def cut(start):
        rows = slice(start, start + batch_size)
        return _to_float(images[rows]), labels[rows]

    return _run(tf.data.Dataset.range(0, len(split), batch_size), cut)


def epoch_order(count, seed, epoch):
    """The order of an epoch: int64 `[count]`, a permutation that depends on (seed, epoch) only.

    Sorting hashes, rather than `tf.random.experimental.stateless_shuffle`, keeps the order the
    same on every TensorFlow version and device.
    """
    import tensorflow as tf

    from soar_tf.ops import random

    keys = tf.cast(
        random.example_keys(seed, tf.range(count), step=epoch, purpose="epoch_order"), tf.int64
    )
    # 63 bits: two examples in a billion tie, and the stable sort settles even that.
    return tf.cast(tf.argsort(keys[:, 0] * 2**31 + keys[:, 1] // 2, stable=True), tf.int64)


def padding(side):
    """Zero padding at each end of a side of that many pixels."""
    return 4 if side >= 32 else max(1, side // 8)


def draw_augmentation(seed, epoch, indices, size):
    """Draws, per example, the crop's offset in the padded image and whether to mirror it.

    Args:
        seed: The training seed.
        epoch: Int or int64 scalar tensor.
        indices: int64 `[B]`: the examples' positions in the split.
        size: `(H, W)` in pixels.

    Returns:
        `(rows, columns, flip)`: int32 `[B]` in 0..2 * padding, the same, and bool `[B]`.
    """
    import tensorflow as tf

    from soar_tf.ops import random

    keys = random.example_keys(seed, indices, step=epoch, purpose="augmentation")
    unit = random.uniform(keys, (3,))
    rows, columns = (
        # The minimum guards against the product being rounded up to the number of offsets.
        tf.minimum(tf.cast(unit[:, i] * (2 * padding(size[i]) + 1), tf.int32), 2 * padding(size[i]))
        for i in (0, 1)
    )
    return rows, columns, unit[:, 2] < 0.5


def augment_batch(images, rows, columns, flip):
    """Crops each image out of its zero-padded self, then mirrors it where `flip`.

    Args:
        images: `[B, H, W, C]`, any type.
        rows: int32 `[B]`: first row of the crop in the padded image; the padding = unshifted.
        columns: int32 `[B]`: first column, likewise.
        flip: bool `[B]`.

    Returns:
        A tensor like `images`.
    """
    import tensorflow as tf

    _, height, width, channels = images.shape
    top, left = padding(height), padding(width)
    padded = tf.pad(images, [[0, 0], [top, top], [left, left], [0, 0]])
    tall, wide = height + 2 * top, width + 2 * left
    column = tf.range(width)[None, :]
    column = tf.where(flip[:, None], width - 1 - column, column) + columns[:, None]
    row = tf.range(height)[None, :] + rows[:, None] + tall * tf.range(tf.shape(images)[0])[:, None]
    # One flat gather of pixels is faster than a gather per axis.
    pixel = row[:, :, None] * wide + column[:, None, :]
    return tf.gather(tf.reshape(padded, [-1, channels]), pixel)


def _check_split(split):
    if len(split) == 0:
        raise InputError("`split` must hold at least one example. Received: none.")


def _tensors(split):
    """Copies the split to host tensors once; tf.data captures them without embedding them."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        return tf.constant(split.images), tf.constant(split.labels)


def _to_float(images):
    """uint8 to float32 in [0, 1], bit for bit as `Split.float_images`."""
    import tensorflow as tf

    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def _run(dataset, function):
    """Maps in parallel, in order, with prefetching."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # Several hosts each take their part of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
