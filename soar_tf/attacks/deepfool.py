"""DeepFool: steps onto the nearest boundary of the linearised network."""

import typing

import tensorflow as tf

from soar_tf.attacks import working_set
from soar_tf.attacks.attack import Attack, misclassified
from soar_tf.ops import losses, norms
from soar_tf.ops.hyperplane import project_onto_hyperplane
from soar_tf.validation import check_integer, check_number


class _Rows(typing.NamedTuple):
    index: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    targets: tf.Tensor  # classes whose boundaries are considered
    move: tf.Tensor  # sum of the steps
    point: tf.Tensor


class DeepFool(Attack):
    r"""DeepFool for the l2 norm (Moosavi-Dezfooli et al. 2015, arXiv:1511.04599, algorithm 2).

    With $f_t = z_t - z_y$ and $w_t = \nabla f_t(x_k)$, each step goes to the nearest linearised
    boundary:

    $$t = \arg\min_t \frac{|f_t(x_k)|}{\|w_t\|_2}, \qquad
      r_{k+1} = r_k + \frac{|f_t(x_k)|}{\|w_t\|_2^2} w_t, \qquad
      x_{k+1} = x + (1 + \eta)\, r_{k+1}$$

    until the point is misclassified. The paper has no pixel box; here the step is the projection
    onto the boundary within the box, which equals the step above if the box constraint is inactive.
    Clipped steps would approach some boundaries without ever crossing them.

    The search does not depend on the radius: an example whose perturbation is longer than `epsilon`
    is returned unchanged. Use a large `epsilon` to measure distances.

    Args:
        epsilon: l2 radius, in the units of `bounds`, within which a point counts.
        norm: `"l2"`.
        steps: Maximum number of steps.
        overshoot: $\eta$, how far points go beyond the boundary.
        classes: Number of other classes to consider, the most likely ones of the image.
        bounds: `(low, high)` of valid pixels.

    Example:

    >>> import soar_tf
    >>> soar_tf.attacks.get("deepfool:epsilon=0.5").norm
    'l2'
    """

    norms = ("l2",)
    minimum_norm = True

    def __init__(
        self,
        epsilon=60 / 255,
        norm="l2",
        steps=50,
        overshoot=0.02,
        classes=9,
        bounds=(0.0, 1.0),
    ):
        super().__init__(epsilon, norm, bounds)
        self.steps = check_integer(steps, "steps", minimum=1)
        self.overshoot = check_number(overshoot, "overshoot", minimum=0.0)
        self.classes = check_integer(classes, "classes", minimum=1)

    def search(self, logits_fn, x, y, keys):
        logits = logits_fn(x)
        targets = working_set.ranked_targets(y, logits, min(self.classes, logits.shape[-1] - 1))

        def body(k, result, rows):
            move = rows.move + self._step(logits_fn, rows)
            point = tf.clip_by_value(rows.x + (1.0 + self.overshoot) * move, *self.bounds)
            done = misclassified(rows.y, logits_fn(point))
            near = norms.norm(point - rows.x, "l2") <= self.epsilon
            final = tf.where(norms.per_example(near, point), point, rows.x)
            rows = rows._replace(move=move, point=point)
            return k + 1, *working_set.retire(result, rows.index, final, done, rows)

        rows = _Rows(tf.range(tf.shape(x)[0]), x, y, targets, tf.zeros_like(x), x)
        return tf.while_loop(
            lambda k, _, rows: (k < self.steps) & (tf.size(rows.index) > 0),
            body,
            (0, x, rows),
            shape_invariants=(tf.TensorShape([]), x.shape, working_set.open_rows(rows)),
            parallel_iterations=1,
        )[1]

    def _step(self, logits_fn, rows):
        """The step onto the nearest linearised boundary; zero if every slope is zero."""

        def body(k, nearest, gap, normal):
            target = rows.targets[:, k]

            def difference(logits):
                return losses.label_logit(target, logits) - losses.label_logit(rows.y, logits)

            _, value, slope = working_set.evaluate(logits_fn, difference, rows.point)
            slope_norm = norms.norm(slope, "l2")
            usable = (slope_norm > 0.0) & tf.math.is_finite(slope_norm)
            distance = tf.where(usable, tf.abs(value) / slope_norm, float("inf"))
            closer = distance < nearest
            return (
                k + 1,
                tf.minimum(distance, nearest),
                tf.where(closer, -value, gap),
                tf.where(norms.per_example(closer, slope), slope, normal),
            )

        zeros = tf.zeros_like(rows.y, rows.x.dtype)
        *_, gap, normal = tf.while_loop(
            lambda k, *_: k < rows.targets.shape[1],
            body,
            (0, zeros + float("inf"), zeros, tf.zeros_like(rows.point)),
            parallel_iterations=1,
        )
        return project_onto_hyperplane(rows.point, normal, gap, "l2", self.bounds)
