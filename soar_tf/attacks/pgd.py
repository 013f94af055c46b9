"""Projected gradient descent and its one-step and no-random-start forms."""

import tensorflow as tf

from soar_tf.attacks.attack import Attack, gather, misclassified, random_start
from soar_tf.errors import check_boolean, check_integer, check_number
from soar_tf.ops import gradients, losses, norms, projections, random


class PGD(Attack):
    r"""Projected gradient descent (Madry et al. 2017, arXiv:1706.06083).

    $$x_{k+1} = \Pi\big(x_k + s \cdot \arg\max_{\|v\| \le 1} v^\top \nabla\ell(x_k)\big)$$

    with $\Pi$ the projection onto the ball and the pixel box. Evaluation keeps the first
    misclassified iterate of each example and spends no further step on it.

    Args:
        epsilon: Radius in units of the pixel range.
        norm: `"linf"` or `"l2"`.
        steps: Number of gradient steps.
        step_size: Length s of a step in the norm. Default: `epsilon / 4` for linf (2/255 at
            8/255), `2.5 * epsilon / steps` for l2.
        random_start: Whether to start at a uniform point of the ball instead of at `x`.
        restarts: Number of starts; later ones only work on examples not yet broken.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("pgd20").steps
    20
    """

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        steps=20,
        step_size=None,
        random_start=True,
        restarts=1,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, bounds)
        self.steps = check_integer(steps, "steps", minimum=1)
        if step_size is not None:
            step_size = check_number(step_size, "step_size", minimum=0.0)
        self.step_size = step_size
        self.random_start = check_boolean(random_start, "random_start")
        self.restarts = check_integer(restarts, "restarts", minimum=1)

    @property
    def effective_step_size(self):
        """The step's length, with the default resolved."""
        if self.step_size is not None:
            return self.step_size
        return self.epsilon / 4 if self.norm == "linf" else 2.5 * self.epsilon / self.steps

    def start(self, x, keys):
        """The first iterate."""
        if not self.random_start:
            return x
        return random_start(keys, x, self.epsilon, self.norm, self.bounds)

    def step(self, x_adv, x, gradient):
        """One projected step along `gradient`."""
        moved = x_adv + self.effective_step_size * norms.steepest_direction(gradient, self.norm)
        return projections.project(moved, x, self.epsilon, self.norm, self.bounds)

    def perturb(self, logits_fn, x, y, keys, *, loss_fn=losses.cross_entropy):
        def values(point):
            return loss_fn(y, logits_fn(point))

        def body(k, x_adv):
            gradient = gradients.input_gradient(values, x_adv)[1]
            return k + 1, tf.ensure_shape(self.step(x_adv, x, gradient), x.shape)

        best, best_values = None, None
        for restart in range(self.restarts):
            x_adv = self.start(x, random.derive(keys, restart))
            if self.steps == 1:
                x_adv = body(0, x_adv)[1]
            else:
                _, x_adv = tf.while_loop(
                    lambda k, _: k < self.steps, body, (0, x_adv), maximum_iterations=self.steps
                )
            if self.restarts == 1:
                return tf.stop_gradient(x_adv)
            reached = values(x_adv)
            better = True if best is None else reached > best_values
            best = x_adv if best is None else tf.where(norms.per_example(better, x), x_adv, best)
            best_values = reached if best_values is None else tf.maximum(reached, best_values)
        return tf.stop_gradient(best)

    def search(self, logits_fn, x, y, keys):
        result = x
        active = tf.range(tf.shape(x)[0])
        for restart in range(self.restarts):
            result, active = self._search_once(logits_fn, x, y, keys, result, active, restart)
        return result

    def _search_once(self, logits_fn, x, y, keys, result, active, restart):
        """One start of the search on the `active` rows; returns results and the rows still active.

        The working set shrinks as examples are broken, so the cost is that of the survivors.
        """
        start = self.start(x, random.derive(keys, restart))
        x_adv, target = gather(active, start, x)
        labels = tf.gather(y, active)

        def keep_going(k, active, *_):
            return (k < self.steps) & (tf.size(active) > 0)

        def body(k, active, x_adv, target, labels, result):
            logits, gradient = _logits_and_gradient(logits_fn, x_adv, labels)
            fooled = misclassified(labels, logits)
            done, left = tf.where(fooled)[:, 0], tf.where(~fooled)[:, 0]
            result = tf.tensor_scatter_nd_update(
                result, tf.gather(active, done)[:, None], tf.gather(x_adv, done)
            )
            active, x_adv, target, labels, gradient = gather(
                left, active, x_adv, target, labels, gradient
            )
            return k + 1, active, self.step(x_adv, target, gradient), target, labels, result

        image = tf.TensorShape([None, *x.shape[1:]])
        row = tf.TensorShape([None])
        _, active, x_adv, _, labels, result = tf.while_loop(
            keep_going,
            body,
            (0, active, x_adv, target, labels, result),
            shape_invariants=(tf.TensorShape([]), row, image, image, row, image),
            parallel_iterations=1,
        )
        result = tf.tensor_scatter_nd_update(result, active[:, None], x_adv)
        if restart + 1 < self.restarts:
            fooled = misclassified(labels, logits_fn(x_adv))
            active = tf.gather(active, tf.where(~fooled)[:, 0])
        return result, active


def _logits_and_gradient(logits_fn, x, y):
    """Logits and the cross-entropy's input gradient, from one pass."""
    seen = []

    def values(point):
        seen.append(logits_fn(point))
        return losses.cross_entropy(y, seen[0])

    _, gradient = gradients.input_gradient(values, x)
    return seen[0], gradient


class FGSM(Attack):
    """Fast gradient sign method (Goodfellow et al. 2014, arXiv:1412.6572): one step of `epsilon`.

    Args:
        epsilon: Radius in units of the pixel range.
        norm: `"linf"` (the sign of the gradient) or `"l2"` (the normalised gradient).
        bounds: `(low, high)` of valid pixels.
    """

    def perturb(self, logits_fn, x, y, keys, *, loss_fn=losses.cross_entropy):
        step = PGD(self.epsilon, self.norm, 1, self.epsilon, False, bounds=self.bounds)
        return step.perturb(logits_fn, x, y, keys, loss_fn=loss_fn)


class BIM(PGD):
    """Basic iterative method (Kurakin et al. 2016, arXiv:1607.02533): PGD that starts at `x`.

    Args:
        epsilon: Radius in units of the pixel range.
        norm: `"linf"` or `"l2"`.
        steps: Number of gradient steps.
        step_size: Length of a step; defaults as for `PGD`.
        bounds: `(low, high)` of valid pixels.
    """

    def __init__(
        self, epsilon=8 / 255, norm="linf", steps=10, step_size=None, bounds=(0.0, 1.0)
    ):
        super().__init__(epsilon, norm, steps, step_size, random_start=False, bounds=bounds)
