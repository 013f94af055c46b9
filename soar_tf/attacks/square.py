"""Square attack: random search with square updates, without gradients (arXiv:1912.00049)."""

import typing

import tensorflow as tf

from soar_tf.attacks import square_windows, working_set
from soar_tf.attacks.attack import Attack, gather
from soar_tf.ops import losses, norms, random
from soar_tf.validation import check_integer, check_number

_CHUNK = 64  # number of queries whose noise is drawn at once
_AHEAD = 8  # passes with fewer rows are filled with later queries


class _Rows(typing.NamedTuple):
    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    keys: tf.Tensor
    best: tf.Tensor
    margin: tf.Tensor  # the label's logit minus the largest other one; at most 0 if broken
    noise: tf.Tensor  # uniform (0, 1) numbers for the current chunk of queries


class Square(Attack):
    """Square attack (Andriushchenko et al. 2019, arXiv:1912.00049), on the margin.

    Each query proposes to change a square window at a random position, whose size shrinks with the
    number of queries, and keeps the change if the margin decreases. For linf all pixels in the
    window move to `x + epsilon` or `x - epsilon`, with one sign per channel; for l2 and l1 the
    perturbation of a second window moves into the first. The attack uses no gradients and one
    forward pass per query. If few examples are left, several queries share a pass, as if none of
    them were accepted, and those after the first accepted one are tried again: the result is the
    same.

    Images are `[B, H, W, C]`; inputs of lower rank are treated as images with one row or channel.

    Args:
        epsilon: Radius, in the units of `bounds`. Default: 12 for l1, else 8/255.
        norm: `"linf"`, `"l2"` or `"l1"`.
        queries: Number of proposals after the random start.
        p_init: Share of the image that the first proposals change.
        restarts: Number of random starts; later ones only work on examples not yet broken.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("square").queries
    5000
    """

    norms = norms.NAMES
    needs_gradients = False

    def __init__(
        self,
        epsilon=None,
        norm="linf",
        queries=5000,
        p_init=0.8,
        restarts=1,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, bounds)
        self.queries = check_integer(queries, "queries", minimum=1)
        self.p_init = check_number(p_init, "p_init", minimum=0.0, maximum=1.0, exclusive=True)
        self.restarts = check_integer(restarts, "restarts", minimum=1)

    def search(self, logits_fn, x, y, keys):
        shape = [-1, *x.shape[1:]]
        proposals = square_windows.PROPOSALS[self.norm](self, _image_shape(x))
        images = tf.reshape(x, [-1, *_image_shape(x)])
        keys = random.derive(keys, "square")

        def margin(points, y):
            return -losses.margin(y, logits_fn(tf.reshape(points, shape)))

        def body(run, active, result):
            rows = working_set.take(active, (images, y, random.derive(keys, run)))
            return run + 1, *self._run(margin, proposals, result, active, *rows)

        active = tf.range(tf.shape(x)[0])
        _, _, result = tf.while_loop(
            lambda run, active, _: (run < self.restarts) & (tf.size(active) > 0),
            body,
            (0, active, images),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), images.shape),
            parallel_iterations=1,
        )
        return tf.ensure_shape(tf.reshape(result, shape), x.shape)

    def _run(self, margin, proposals, result, active, x, y, keys):
        """One random start and its queries; returns the rows still active and the results."""
        start = proposals.start(x, keys)
        empty = random.uniform(keys, (1, proposals.numbers))[:, :0]
        rows = _Rows(active, x, y, keys, start, margin(start, y), empty)
        result, rows = _retire(result, rows)
        stages = tf.constant(square_windows.halvings(self.queries))

        def body(query, result, rows):
            number = query % _CHUNK

            def draw():
                chunk = random.derive(rows.keys, query // _CHUNK)
                return random.uniform(chunk, (_CHUNK, proposals.numbers))

            noise = tf.cond(number == 0, draw, lambda: rows.noise)
            remaining = tf.minimum(_CHUNK - number, self.queries - query)
            ahead = tf.clip_by_value(_AHEAD // tf.size(rows.index), 1, remaining)
            queries = noise[:, number : number + ahead], stages[query : query + ahead]
            rows, tried = self._query(margin, proposals, rows._replace(noise=noise), *queries)
            return query + tried, *_retire(result, rows)

        image = working_set.open_rows(rows)
        noise = tf.TensorShape([None, None, proposals.numbers])
        _, result, rows = tf.while_loop(
            lambda query, _, rows: (query < self.queries) & (tf.size(rows.index) > 0),
            body,
            (0, result, rows),
            shape_invariants=(tf.TensorShape([]), result.shape, image._replace(noise=noise)),
            parallel_iterations=1,
        )
        return rows.index, tf.tensor_scatter_nd_update(result, rows.index[:, None], rows.best)

    def _query(self, margin, proposals, rows, noise, stages):
        """Tries queries up to the first one that is accepted for any row.

        Args:
            margin: Callable `(points, y) -> [n]`.
            proposals: See `square_windows.PROPOSALS`.
            rows: The n rows.
            noise: float32 tensor `[n, q, numbers]`, for the next q queries.
            stages: int tensor `[q]`.

        Returns:
            `(rows, tried)`: the rows after `tried` queries, 1 to q.
        """
        count, ahead = tf.size(rows.index), tf.size(stages)
        best, x, y, margins = (
            tf.repeat(values, ahead, axis=0) for values in (rows.best, rows.x, rows.y, rows.margin)
        )
        numbers = tf.reshape(noise, [count * ahead, proposals.numbers])
        proposed = proposals.propose(best, x, numbers, tf.tile(stages, [count]))
        new_margins = margin(proposed, y)
        # NaN counts as misclassified.
        better = tf.reshape(~(new_margins >= margins), [count, ahead])
        first = tf.argmax(better, axis=1, output_type=tf.int32)
        first = tf.where(tf.reduce_any(better, axis=1), first, ahead)
        last = tf.minimum(tf.reduce_min(first), ahead - 1)
        accepted, chosen = first == last, tf.range(count) * ahead + last
        points, new_margins = gather(chosen, proposed, new_margins)
        rows = rows._replace(
            best=tf.where(norms.per_example(accepted, points), points, rows.best),
            margin=tf.where(accepted, new_margins, rows.margin),
        )
        return rows, last + 1


def _retire(result, rows):
    done = ~(rows.margin > 0)
    return working_set.retire(result, rows.index, rows.best, done, rows)


def _image_shape(x):
    shape = list(x.shape[1:])
    if len(shape) == 1:
        return [1, *shape, 1]
    return [*shape, 1] if len(shape) == 2 else shape
