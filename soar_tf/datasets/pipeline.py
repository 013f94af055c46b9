"""tf.data pipelines: images are gathered from memory or read one by one, then augmented in batches.

Everything random is a pure function of (seed, epoch, example), through `soar_tf.ops.random`, so a
pipeline that starts at epoch k yields the very bits that an uninterrupted one yields from there on.
"""

import itertools

from soar_tf.datasets import augmentation, mixing, reading
from soar_tf.datasets.images import InMemory, host_tensor
from soar_tf.errors import InputError
from soar_tf.validation import check_integer, check_seed


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
    memory_limit=None,
    threads=None,
    part=(0, 1),
):
    """Builds the batches of epochs `initial_epoch` to `epochs - 1`, each in an order of its own.

    The remainder of an epoch that fills no batch is dropped (other examples in every epoch); a
    split smaller than `batch_size` gives one batch with all of it.

    Args:
        split: A `Split`. If it has `resize_crop`, its images are read in every epoch.
        batch_size: Examples per batch, at least 1.
        seed: Int >= 0: the training seed.
        epochs: Number of the last epoch plus one.
        initial_epoch: The epoch to start at.
        initial_step: Steps of that epoch to leave out, fewer than it has; none of their images is
            read.
        augment: Whether to crop at random out of zero padding (4 pixels for sides of 32 or more,
            else an eighth of the side, at least 1) and to mirror half of the images; with
            `split.resize_crop`, whether crops are random (and mirrored) or central.
        cutout: Side in pixels of a grey square that is laid over each image, at most the images'
            shorter side, or `None` (DeVries and Taylor 2017, arXiv:1708.04552). Its centre is a
            uniform pixel, so it may be cut by the border. It comes after cropping and mirroring.
        mixup: The number a, in (0, 100], or `None`: each image, and its label, becomes a
            combination of itself and another one of the batch, in shares that are drawn from
            Beta(a, a) (Zhang et al. 2018, arXiv:1710.09412). It comes last.
        num_classes: Number of classes, which `mixup` needs.
        memory_limit: Images of more bytes than this are read batch by batch, `None`: 512 MiB.
        threads: Images that are read at the same time, `None`: as many as TensorFlow finds best.
            Neither this nor `memory_limit` changes the batches.
        part: `(k, n)`: only the k-th of n equal parts of every batch, for one of n replicas;
            `batch_size` must be divisible by n. No other images are read, but with `mixup`, which
            combines images of the whole batch.

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
    seed = check_seed(seed)
    initial_epoch = check_integer(initial_epoch, "initial_epoch", minimum=0)
    epochs = check_integer(epochs, "epochs", minimum=initial_epoch + bool(initial_step))
    batch_size = min(check_integer(batch_size, "batch_size", minimum=1), len(split))
    cutout = augmentation.check_cutout(cutout, split.image_shape[:2])
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
    own = _own_part(batch_size, part)
    needed = own if mixup is None else slice(0, batch_size)
    crops = split.resize_crop if augment else None
    read = _reader(split, memory_limit, threads, (crops, seed))

    def batches(epoch):
        order = epoch_order(len(split), seed, epoch)[: steps * batch_size]
        rows = tf.reshape(order, [steps, batch_size])[:, needed]
        rows = tf.data.Dataset.from_tensor_slices(rows)
        if initial_step:
            rows = rows.skip(initial_step * tf.cast(epoch == initial_epoch, tf.int64))
        return rows.map(lambda row: (epoch, row))

    def augmented(epoch, indices, x, y):
        if augment and not crops:
            draws = augmentation.draw_augmentation(seed, epoch, indices, x.shape[1:3])
            x = augmentation.augment_batch(x, *draws)
        x = _to_float(x)
        if cutout is not None:
            draws = augmentation.draw_cutout(seed, epoch, indices, x.shape[1:3])
            x = augmentation.cut_out(x, *draws, cutout)
        if mixup is not None:
            shares = mixing.draw_shares(seed, epoch, indices, mixup)
            x, y = (mixed[own] for mixed in mixing.mix(x, y, shares, num_classes))
        return x, y

    rows = tf.data.Dataset.range(initial_epoch, epochs).flat_map(batches)
    dataset = read(rows, augmented, needed.stop - needed.start)
    return _finished(dataset, (epochs - initial_epoch) * steps - initial_step), steps


def evaluation_pipeline(split, batch_size, *, memory_limit=None, threads=None, part=(0, 1)):
    """Builds the batches of one pass in the split's own order; the last may be smaller.

    Args:
        split: A `Split`.
        batch_size: Examples per batch, at least 1.
        memory_limit: See `training_pipeline`.
        threads: See `training_pipeline`.
        part: `(k, n)`: only the k-th of n parts of every batch, equal but for one example. An
            example that would leave a part of the last batch empty joins the batch before it.

    Returns:
        A `tf.data.Dataset` of `(x, y)`: float32 `[B, H, W, C]` in [0, 1], int64 `[B]`.

    Raises:
        InputError: If `batch_size` is out of range, or the split has fewer examples than parts.

    Example:

    >>> from soar_tf import datasets
    >>> test = datasets.evaluation_pipeline(datasets.load("digits")["test"], 150)
    >>> [len(y) for _, y in test]
    [150, 150, 100]
    """
    import tensorflow as tf

    _check_split(split)
    batch_size = check_integer(batch_size, "batch_size", minimum=1)
    number, parts = part
    if len(split) < parts:
        raise InputError(f"`split` must hold at least {parts} examples. Received: {len(split)}.")
    cuts = [*range(0, len(split), batch_size), len(split)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] < parts:
        del cuts[-2]
    bounds = [
        [a + (b - a) * k // parts for k in (number, number + 1)]
        for a, b in itertools.pairwise(cuts)
    ]
    rows = tf.data.Dataset.from_tensor_slices(tf.constant(bounds, tf.int64))
    rows = rows.map(lambda pair: (tf.constant(0, tf.int64), tf.range(pair[0], pair[1])))
    read = _reader(split, memory_limit, threads)
    dataset = read(rows, lambda _epoch, _rows, x, y: (_to_float(x), y))
    return _finished(dataset, len(bounds))


def _own_part(batch_size, part):
    number, parts = part
    if batch_size % parts:
        raise InputError(f"`batch_size` must be divisible by {parts}. Received: {batch_size}.")
    size = batch_size // parts
    return slice(number * size, (number + 1) * size)


def _reader(split, memory_limit, threads, crops=(None, 0)):
    """A function from datasets of `(epoch, rows)` to those of batches.

    It takes that dataset, a function of `(epoch, rows, images, labels)`, and the number of rows if
    that is always the same. Images that fit into memory are gathered there, a batch at once. Others
    are fetched a batch at once, and decoded one by one where TensorFlow can do it by itself.

    Args:
        split: The `Split`.
        memory_limit: See `training_pipeline`.
        threads: See `training_pipeline`.
        crops: Side of random resized crops, or `None`; and the seed.
    """
    import tensorflow as tf

    threads = threads or tf.data.AUTOTUNE
    side, seed = crops
    source = (split if side else split.in_memory(memory_limit)).source
    labels = host_tensor(split.labels)
    array = host_tensor(source.array) if isinstance(source, InMemory) else None

    def one(key, *fetched):
        if side is None:
            return source.load(*fetched)
        return reading.random_crop(source.whole(*fetched), key[None], side)

    def fetch(epoch, row):
        keys = row if side is None else random_keys(seed, epoch, row)
        return tf.fill(tf.shape(row), epoch), row, keys, *source.fetched(row)

    def read(rows, function, size=None):
        if side or (source.in_graph and size):
            count = _together(size)

            def parts(epoch, row):
                return tuple(
                    tf.reshape(part, [size // count, count, *part.shape[1:]])
                    for part in fetch(epoch, row)
                )

            def several(epoch, row, *fetched):
                images = [one(*(part[k] for part in fetched)) for k in range(count)]
                return epoch, row, tf.stack(images)

            several_at_once = rows.map(parts, threads, deterministic=True).unbatch()
            several_at_once = several_at_once.map(several, threads, deterministic=True)
            batches = several_at_once.batch(size // count, drop_remainder=True)

            def whole(epochs, row, x):
                row, x = tf.reshape(row, [size]), tf.reshape(x, [size, *x.shape[2:]])
                return function(epochs[0, 0], row, x, tf.gather(labels, row))

        else:
            batches = rows

            def whole(epoch, row):
                x = source.batch(row) if array is None else tf.gather(array, row)
                return function(epoch, row, x, tf.gather(labels, row))

        return batches.map(whole, threads, deterministic=True)

    return read


def _together(size):
    """Images of a batch of `size` that one call decodes, at most 8: a call takes its time, too."""
    return max(count for count in range(1, 9) if size % count == 0)


def random_keys(seed, epoch, indices):
    """The noise keys of examples' crops in an epoch, uint32 `[n, 2]`."""
    from soar_tf.ops import random

    return random.example_keys(seed, indices, step=epoch, purpose="resize_crop")


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


def _check_split(split):
    if len(split) == 0:
        raise InputError("`split` must hold at least one example. Received: none.")


def _to_float(images):
    """uint8 to float32 in [0, 1], bit for bit as `Split.float_images`."""
    import tensorflow as tf

    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def _finished(dataset, count):
    """Says how many batches come, in order, with prefetching."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # Several hosts each take their part of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
