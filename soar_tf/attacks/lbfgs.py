"""The box-constrained L-BFGS attack, the first attack on deep networks."""

import typing

import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.attacks.bisection import Bisection, fooled_finitely
from soar_tf.ops import losses, norms
from soar_tf.validation import check_integer

_ARMIJO = 1e-4
_TRIALS = 12  # step lengths that a line search tries


class _State(typing.NamedTuple):
    point: tf.Tensor
    value: tf.Tensor
    gradient: tf.Tensor
    moves: tf.Tensor  # [n, history, d], newest first
    changes: tf.Tensor  # of the gradient, [n, history, d]
    weights: tf.Tensor  # 1 / (move . change), 0 for unused pairs, [n, history]
    succeeded: tf.Tensor


class LBFGS(Bisection):
    r"""Box-constrained L-BFGS (Szegedy et al. 2013, arXiv:1312.6199, section 4.1), l2.

    $$\min_{x'} \|x' - x\|_2^2 + c \cdot \mathrm{CE}(t, z(x')) \quad\text{s.t. } l \le x' \le h$$

    for a target class t, from the image, by projected L-BFGS with Armijo backtracking; the
    smallest c that succeeds is found by bisection. (In the paper, c multiplies the distance and the
    largest c is sought.) The search does not depend on the radius: the nearest misclassified point
    counts if it is within `epsilon`; otherwise the example is returned unchanged.

    Args:
        epsilon: l2 radius, in the units of `bounds`, within which a point counts.
        norm: `"l2"`.
        steps: L-BFGS iterations for each c.
        search_steps: Number of constants c to try.
        initial_c: First c.
        history: Number of past steps in the Hessian approximation.
        target: Target class, see `PGD`, but not `None` or `"all"`; any misclassification counts.
        early_stop: Whether an example leaves the search at its first point within `epsilon`, which
            makes no difference to robust accuracy; `False` for the smallest distance.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("lbfgs").norm
    'l2'
    """

    def __init__(
        self,
        epsilon=60 / 255,
        norm="l2",
        steps=30,
        search_steps=9,
        initial_c=0.01,
        history=5,
        target="second",
        early_stop=True,
        bounds=(0.0, 1.0),
    ):
        target = "second" if target is None else target
        super().__init__(epsilon, norm, steps, search_steps, initial_c, target, early_stop, bounds)
        self.history = check_integer(history, "history", minimum=1)

    def _descend(self, logits_fn, result, rows):
        fooled, value, gradient = self._evaluate(logits_fn, rows, rows.x)
        past = tf.zeros_like(norms.flatten(rows.x))[:, None, :] + tf.zeros([self.history, 1])
        state = _State(rows.x, value, gradient, past, past, past[:, :, 0], fooled)

        def body(k, result, rows, state):
            direction = _direction(state, self.bounds)
            state, fooled = self._line_search(logits_fn, rows, state, direction)
            rows = self._keep_nearest(rows, state.point, fooled)
            state = state._replace(succeeded=state.succeeded | fooled)
            return self._retire_near(result, rows, state)

        result, rows, state = self._loop(body, result, rows, state)
        return result, rows, state.succeeded

    def _evaluate(self, logits_fn, rows, point):
        """Whether the points are misclassified, the objective there, and its gradient."""
        delta = point - rows.x
        logits, loss, gradient = working_set.evaluate(
            logits_fn, lambda logits: losses.cross_entropy(rows.target, logits), point
        )
        value = tf.reduce_sum(norms.flatten(delta) ** 2, axis=1) + rows.c * loss
        gradient = 2.0 * delta + norms.per_example(rows.c, point) * gradient
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        return fooled_finitely(rows.y, logits), value, gradient

    def _line_search(self, logits_fn, rows, state, direction):
        """Halves each row's step until the objective decreases enough; else the row stays."""

        def body(trial, length, accepted, fooled, current):
            moved = state.point + norms.per_example(length, direction) * direction
            point = tf.clip_by_value(moved, *self.bounds)
            wrong, value, gradient = self._evaluate(logits_fn, rows, point)
            predicted = _inner(state.gradient, point - state.point)
            enough = ~accepted & (predicted < 0.0)
            enough &= value <= state.value + _ARMIJO * predicted
            current = tuple(
                tf.where(norms.per_example(enough, new), new, old)
                for new, old in zip((point, value, gradient), current, strict=True)
            )
            fooled = tf.where(enough, wrong, fooled)
            return trial + 1, 0.5 * length, accepted | enough, fooled, current

        none = tf.zeros_like(rows.y, tf.bool)
        start = (0, tf.ones_like(state.value), none, none, state[:3])
        _, _, accepted, fooled, (point, value, gradient) = tf.while_loop(
            lambda trial, _, accepted, *__: (trial < _TRIALS) & ~tf.reduce_all(accepted),
            body,
            start,
            parallel_iterations=1,
        )
        move = norms.flatten(point - state.point)
        change = norms.flatten(gradient - state.gradient)
        curvature = tf.reduce_sum(move * change, axis=1)
        # Only pairs with positive curvature keep the approximate Hessian positive definite.
        use = accepted & (curvature > 1e-7 * tf.reduce_sum(change**2, axis=1))
        weight = tf.where(use, 1.0 / tf.where(use, curvature, 1.0), 0.0)

        def push(past, new):
            shifted = tf.concat([new[:, None], past[:, :-1]], axis=1)
            return tf.where(tf.reshape(use, [-1] + [1] * (len(past.shape) - 1)), shifted, past)

        state = state._replace(
            point=point,
            value=value,
            gradient=gradient,
            moves=push(state.moves, move),
            changes=push(state.changes, change),
            weights=push(state.weights, weight),
        )
        return state, fooled


def _direction(state, bounds):
    """The quasi-Newton direction within the box, by the two-loop recursion."""
    low, high = bounds
    outward = ((state.point <= low) & (state.gradient > 0.0)) | (
        (state.point >= high) & (state.gradient < 0.0)
    )
    free = 1.0 - norms.flatten(tf.cast(outward, state.gradient.dtype))
    gradient = free * norms.flatten(state.gradient)
    moves, changes = free[:, None] * state.moves, free[:, None] * state.changes
    q, alphas = gradient, []
    for k in range(state.moves.shape[1]):
        alphas.append(state.weights[:, k] * tf.reduce_sum(moves[:, k] * q, axis=1))
        q -= alphas[k][:, None] * changes[:, k]
    # Scale of the inverse Hessian; without pairs, one that limits the step to a tenth of the box.
    newest = tf.math.divide_no_nan(1.0, state.weights[:, 0] * _square(state.changes[:, 0]))
    first = tf.minimum(0.5, tf.math.divide_no_nan(0.1 * (high - low), tf.sqrt(_square(gradient))))
    q *= tf.where(state.weights[:, 0] > 0.0, newest, first)[:, None]
    for k in reversed(range(state.moves.shape[1])):
        beta = state.weights[:, k] * tf.reduce_sum(changes[:, k] * q, axis=1)
        q += (alphas[k] - beta)[:, None] * moves[:, k]
    downhill = tf.reduce_sum(q * gradient, axis=1, keepdims=True) > 0.0
    direction = -free * tf.where(downhill, q, first[:, None] * gradient)
    return tf.reshape(direction, tf.shape(state.point))


def _square(x):
    return tf.reduce_sum(x**2, axis=1)


def _inner(a, b):
    return tf.reduce_sum(norms.flatten(a * b), axis=1)
