"""Projected gradient descent, and its variants with one step or without a random start."""

import typing

import tensorflow as tf

from soar_tf.attacks import targets, working_set
from soar_tf.attacks.attack import Attack, misclassified, random_start
from soar_tf.ops import gradients, losses, norms, projections, random
from soar_tf.validation import check_boolean, check_integer, check_number

# Share of the coordinates that an l1 step moves.
L1_SHARE = 0.01


class _Rows(typing.NamedTuple):
    """The state of the search for each example that is not broken yet."""

    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    target: tf.Tensor
    point: tf.Tensor
    memory: tuple


class PGD(Attack):
    r"""Projected gradient descent (Madry et al. 2017, arXiv:1706.06083).

    $$x_{k+1} = \Pi\big(x_k + s \cdot \arg\max_{\|v\| \le 1} v^\top \nabla\ell(x_k)\big)$$

    where $\Pi$ projects onto the ball and the pixel box. An l1 step moves, by equal amounts, the
    1 % of the pixels with the steepest slopes among those that the box allows to move (Tramer and
    Boneh 2019, arXiv:1904.13000). Evaluation keeps the first misclassified iterate of each example
    and spends no more steps on it. With a `target` the loss is minus that of the target class; any
    misclassification still counts.

    Args:
        epsilon: Radius, in the units of `bounds`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        steps: Number of gradient steps.
        step_size: Length s of a step in the norm. Default: `epsilon / 4` for linf (2/255 at
            8/255), `2.5 * epsilon / steps` for l2 and l1.
        random_start: Whether to start at a uniform point in the ball instead of at `x`.
        restarts: Number of starts; later ones only work on examples not yet broken.
        target: Target class: `None` (away from the label), `"second"`, `"least_likely"`,
            `"next"`, `"random"`, a class number, or `"all"`: one run per other class, the
            multi-targeted attack of Gowal et al. 2019, arXiv:1910.09338.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("pgd20").steps
    20
    """

    norms = ("linf", "l2", "l1")

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        steps=20,
        step_size=None,
        random_start=True,
        restarts=1,
        target=None,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, bounds)
        self.steps = check_integer(steps, "steps", minimum=1)
        if step_size is not None:
            step_size = check_number(
                step_size, "step_size", minimum=0.0, exclusive=self.epsilon > 0
            )
        self.step_size = step_size
        self.random_start = check_boolean(random_start, "random_start")
        self.restarts = check_integer(restarts, "restarts", minimum=1)
        self.target = targets.check_target(target)

    @property
    def effective_step_size(self):
        """The length of a step, with the default resolved."""
        if self.step_size is not None:
            return self.step_size
        return self.epsilon / 4 if self.norm == "linf" else 2.5 * self.epsilon / self.steps

    def start(self, x, keys):
        """The first iterate."""
        if not self.random_start:
            return x
        return random_start(keys, x, self.epsilon, self.norm, self.bounds)

    def memory(self, x):
        """The state of a run between steps, a tuple of tensors `[B, ...]`; here it is empty."""
        return ()

    def step(self, x_adv, x, gradient):
        """One projected step along `gradient`."""
        moved = x_adv + self.effective_step_size * self.direction(x_adv, gradient)
        return projections.project(moved, x, self.epsilon, self.norm, self.bounds)

    def direction(self, x_adv, gradient):
        """The direction of a step, of norm 1."""
        if self.norm != "l1":
            return norms.steepest_direction(gradient, self.norm)
        low, high = self.bounds
        stuck = ((gradient > 0) & (x_adv >= high)) | ((gradient < 0) & (x_adv <= low))
        return norms.sparse_direction(tf.where(stuck, 0.0, gradient), L1_SHARE)

    def advance(self, x_adv, x, gradient, memory):
        """The next iterate and memory."""
        # A coordinate without a finite slope does not move.
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        return self.step(x_adv, x, gradient), memory

    def perturb(self, logits_fn, x, y, keys, *, loss_fn=losses.cross_entropy):
        run_targets = self._targets(logits_fn, x, y, keys)
        best, best_values = None, None
        for run, target in enumerate(t for t in run_targets for _ in range(self.restarts)):
            x_adv = self._perturb_once(logits_fn, x, y, target, random.derive(keys, run), loss_fn)
            if self.restarts * len(run_targets) == 1:
                return tf.stop_gradient(x_adv)
            values = loss_fn(y, logits_fn(x_adv))
            better = True if best is None else values > best_values
            best = x_adv if best is None else tf.where(norms.per_example(better, x), x_adv, best)
            best_values = values if best_values is None else tf.maximum(values, best_values)
        return tf.stop_gradient(best)

    def _targets(self, logits_fn, x, y, keys):
        """The classes whose loss each run uses, a list of tensors `[B]`."""
        if self.target is None:
            return [y]
        return tf.unstack(targets.choose(self.target, logits_fn, x, y, keys), axis=1)

    def _loss(self, target, logits, loss_fn=losses.cross_entropy):
        return loss_fn(target, logits) if self.target is None else -loss_fn(target, logits)

    def _perturb_once(self, logits_fn, x, y, target, keys, loss_fn):
        def values(point):
            return self._loss(target, logits_fn(point), loss_fn)

        def body(k, x_adv, memory):
            gradient = gradients.input_gradient(values, x_adv)[1]
            x_adv, memory = self.advance(x_adv, x, gradient, memory)
            return k + 1, tf.ensure_shape(x_adv, x.shape), memory

        state = (0, self.start(x, keys), self.memory(x))
        if self.steps == 1:
            return body(*state)[1]
        return tf.while_loop(
            lambda k, *_: k < self.steps, body, state, maximum_iterations=self.steps
        )[1]

    def search(self, logits_fn, x, y, keys):
        run_targets = tf.stack(self._targets(logits_fn, x, y, keys), axis=1)
        runs = self.restarts * run_targets.shape[1]

        def body(run, active, result):
            target = tf.gather(run_targets, run // self.restarts, axis=1)
            rows = working_set.take(active, (x, y, target, random.derive(keys, run)))
            return run + 1, *self._search_once(logits_fn, result, active, *rows, run + 1 == runs)

        active = tf.range(tf.shape(x)[0])
        _, _, result = tf.while_loop(
            lambda run, active, _: (run < runs) & (tf.size(active) > 0),
            body,
            (0, active, x),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), x.shape),
            parallel_iterations=1,
        )
        return result

    def _search_once(self, logits_fn, result, active, x, y, target, keys, last):
        """One run on the `active` rows; returns the rows still active and the results.

        The working set shrinks as examples are broken, so only survivors cost time.
        """

        def body(k, result, rows):
            logits, _, gradient = working_set.evaluate(
                logits_fn, lambda logits: self._loss(rows.target, logits), rows.point
            )
            result, (rows, gradient) = working_set.retire(
                result, rows.index, rows.point, misclassified(rows.y, logits), (rows, gradient)
            )
            point, memory = self.advance(rows.point, rows.x, gradient, rows.memory)
            return k + 1, result, rows._replace(point=point, memory=memory)

        rows = _Rows(active, x, y, target, self.start(x, keys), self.memory(x))
        _, result, rows = tf.while_loop(
            lambda k, _, rows: (k < self.steps) & (tf.size(rows.index) > 0),
            body,
            (0, result, rows),
            shape_invariants=(tf.TensorShape([]), result.shape, working_set.open_rows(rows)),
            parallel_iterations=1,
        )
        result = tf.tensor_scatter_nd_update(result, rows.index[:, None], rows.point)

        def unbroken():
            fooled = misclassified(rows.y, logits_fn(rows.point))
            return tf.gather(rows.index, tf.where(~fooled)[:, 0])

        # The survivors of the last run are not needed, which saves a pass. And oneDNN's
        # convolutions fail on an empty batch.
        return tf.cond(last | (tf.size(rows.index) == 0), lambda: rows.index, unbroken), result


class FGSM(Attack):
    """Fast gradient sign method (Goodfellow et al. 2014, arXiv:1412.6572): one step of `epsilon`.

    Args:
        epsilon: Radius, in the units of `bounds`.
        norm: `"linf"` (the sign of the gradient), `"l2"` (the normalised gradient) or `"l1"` (see
            `PGD`).
        target: Target class, see `PGD`; `"least_likely"` is the one-step attack of Kurakin et al.
            2016, arXiv:1611.01236.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.FGSM(epsilon="8/255").norm
    'linf'
    """

    norms = PGD.norms

    def __init__(self, epsilon=8 / 255, norm="linf", target=None, bounds=(0.0, 1.0)):
        super().__init__(epsilon, norm, bounds)
        self.target = targets.check_target(target)

    def _step(self):
        return PGD(
            self.epsilon, self.norm, 1, self.epsilon, False, target=self.target, bounds=self.bounds
        )

    def perturb(self, logits_fn, x, y, keys, *, loss_fn=losses.cross_entropy):
        return self._step().perturb(logits_fn, x, y, keys, loss_fn=loss_fn)

    def search(self, logits_fn, x, y, keys):
        return self._step().search(logits_fn, x, y, keys)


class BIM(PGD):
    """Basic iterative method (Kurakin et al. 2016, arXiv:1607.02533): PGD that starts at `x`.

    Args:
        epsilon: Radius, in the units of `bounds`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        steps: Number of gradient steps.
        step_size: Length of a step; the default is that of `PGD`.
        target: Target class, see `PGD`.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.BIM(epsilon="8/255", steps=10).steps
    10
    """

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        steps=10,
        step_size=None,
        target=None,
        bounds=(0.0, 1.0),
    ):
        super().__init__(
            epsilon, norm, steps, step_size, random_start=False, target=target, bounds=bounds
        )
