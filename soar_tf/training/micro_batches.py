"""Gradient accumulation inside one step: a batch in parts, one after the other, to save memory."""

import typing

import tensorflow as tf

from soar_tf.errors import InputError


class Part(typing.NamedTuple):
    """What a part of a batch adds to the whole batch's step.

    Attributes:
        objective: Its share of the batch's mean loss, regularization losses included: scalar.
        penalty: Its share of the batch's weighted mean penalty, scalar, or `None`.
        mean_penalty: Its share of the batch's plain mean penalty, scalar, or `None`.
        diagnostics: Its shares of the batch's mean diagnostics, scalars by name.
        logits: `[n, C]`, one row an example.
        gradients: Its share of the gradient by each weight, with `None` where there is none.
        penalty_gradients: Its share of the penalty's gradient if that is to be clipped by itself
            (and is then not in `gradients`), else `None`.
        points: The points that the method searched, `[n, ...]` each, if they are asked for.
    """

    objective: tf.Tensor
    penalty: tf.Tensor | None
    mean_penalty: tf.Tensor | None
    diagnostics: dict
    logits: tf.Tensor
    gradients: list
    penalty_gradients: list | None
    points: tuple = ()


def accumulate(part_of, tensors, size):
    """The whole batch's `Part`: the sum of its parts, computed one after the other.

    Args:
        part_of: Callable of the tensors' rows that gives their `Part`.
        tensors: Tuple of tensors `[B, ...]`, or `None`s.
        size: Examples in a part, or `None` for one part. If B is not a multiple of it, the last
            part is smaller.

    Returns:
        A `Part`.

    Raises:
        InputError: Under XLA, for a batch whose size is not known beforehand.
    """
    batch = tensors[0].shape[0]
    if size is None or (batch is not None and batch <= size):
        return part_of(*tensors)
    if batch is None:
        count = tf.shape(tensors[0])[0]
        return _loop(part_of, tensors, size, -(-count // size), None)
    # Fixed shapes, as XLA wants them: the smaller part at the end is a graph of its own.
    total = _loop(part_of, tensors, size, batch // size, size)
    if batch % size:
        total = _sum(total, part_of(*_rows(tensors, batch - batch % size, batch)))
    return total


def check_compilable(x, size):
    """Refuses a batch of unknown size under XLA, which needs the number of examples of each part.

    Raises:
        InputError: With what to do.
    """
    if size is not None and x.shape[0] is None:
        raise InputError(
            "`micro_batch` with jit_compile=True needs batches of one known size; batch the data "
            "set with drop_remainder=True. Received: batches of unknown size."
        )


def _loop(part_of, tensors, size, count, known_size):
    """Adds up `count` parts of `size` rows in a loop, so that memory holds one part at a time."""

    def part(k):
        if known_size is None:
            return part_of(*_rows(tensors, k * size, (k + 1) * size))
        return part_of(*_map(lambda tensor: _known_rows(tensor, k * size, known_size), tensors))

    # The first part, before the loop, tells which values there are.
    first = part(0)
    arrays = [
        tf.TensorArray(rows.dtype, count, infer_shape=False, element_shape=rows.shape).write(
            0, rows
        )
        for rows in _by_example(first)
    ]
    present = [value is not None for value in _flat(first)]

    def body(k, sums, arrays):
        more = part(k)
        values = [value for value in _flat(more) if value is not None]
        sums = [a + b for a, b in zip(sums, values, strict=True)]
        rows = zip(arrays, _by_example(more), strict=True)
        return k + 1, sums, [array.write(k, tensor) for array, tensor in rows]

    sums = [tf.convert_to_tensor(value) for value in _flat(first) if value is not None]
    state = (1, sums, arrays)
    _, sums, arrays = tf.while_loop(lambda k, *_: k < count, body, state, parallel_iterations=1)
    values = iter(sums)
    whole = [next(values) if there else None for there in present]
    return _pack(first, whole, [array.concat() for array in arrays])


def _by_example(part):
    """What a part has a row of for each example; everything else is a share of a sum."""
    return [part.logits, *part.points]


def _without_rows(part):
    return part._replace(logits=None, points=())


def _flat(part):
    return tf.nest.flatten(_without_rows(part))


def _pack(like, values, rows):
    packed = tf.nest.pack_sequence_as(_without_rows(like), values)
    return packed._replace(logits=rows[0], points=tuple(rows[1:]))


def _sum(first, second):
    pairs = zip(_flat(first), _flat(second), strict=True)
    sums = [None if a is None else a + b for a, b in pairs]
    rows = zip(_by_example(first), _by_example(second), strict=True)
    return _pack(first, sums, [tf.concat(both, axis=0) for both in rows])


def _rows(tensors, start, stop):
    return _map(lambda tensor: tensor[start:stop], tensors)


def _known_rows(tensor, start, count):
    """`count` rows as a tensor of static shape, though `start` is a loop variable."""
    sizes = [-1 if side is None else side for side in tensor.shape[1:]]
    return tf.slice(tensor, [start, *[0] * len(sizes)], [count, *sizes])


def _map(function, tensors):
    return tuple(None if tensor is None else function(tensor) for tensor in tensors)
