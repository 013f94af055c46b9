"""SOAR, the second-order adversarial regularizer."""

import math

import tensorflow as tf

from soar_tf.attacks import PGD
from soar_tf.attacks.attack import random_start
from soar_tf.errors import InputError
from soar_tf.methods import crafting
from soar_tf.methods import inner_loss as inner
from soar_tf.methods.method import UNCLIPPED, Terms, optional_number
from soar_tf.methods.regularizer import Regularizer
from soar_tf.ops import curvature, gradients, random
from soar_tf.validation import check_boolean, check_choice, check_integer, check_number

# The two interpretations of the paper's constants, in per-example units (docs/design.md, "Units").
PRESETS = {
    "per_example": {"lambda_": 0.5, "norm_clip": 10.0},
    "batch_mean": {"lambda_": 0.5 / 128, "norm_clip": 1280.0},
}
INITS = ("pgd1", "random", "zero", "fgsm")
# The `alpha` that means the radius of the l2 ball around the threat model's ball.
BALL = "ball"


class _GradientStep(PGD):
    """Projected gradient ascent: the step is proportional to the gradient."""

    def direction(self, x_adv, gradient):
        return gradient


STEPS = {"steepest": PGD, "gradient": _GradientStep}


class SOAR(Regularizer):
    r"""Second-order adversarial regularizer (Ma et al. 2020, arXiv:2004.01832, eqs. 11 and 12).

    Minimises $\ell(x') + \lambda R(x')$ per example, where

    $$R(x') = \frac{d\epsilon^2 + 1}{2} \left\| \|z_d\|_2
    \frac{\nabla\ell(x' + h\tilde z_d) - \nabla\ell(x')}{h} + z_1 \nabla\ell(x') \right\|_2$$

    bounds the second-order part of the loss's growth inside the ball. Gradients are per example, so
    R does not depend on the rest of the batch (except with `norm_clip_scope="batch"`).

    **At ball scale.** With h of at most 0.03 the penalty sees only the curvature next to x', and
    shrinking gradients lower it. `alpha="ball"` lets h reach $\sqrt d\,\epsilon$ (1.74 on CIFAR-10
    at 8/255), and `measure` replaces the norm by the relative change of the gradient:

    $$R(x') = \frac{\|g' - g\|_2}{\|g\|_2} \quad\text{or}\quad R(x') = 1 - \cos(g', g), \qquad
    g = \nabla\ell(x'),\ g' = \nabla\ell(x' + h\tilde z_d),$$

    without the leading factor and without $z_1$; the theory page explains what that bounds. The
    norm clip then acts on R. Use a $\lambda$ of the order of GradAlign's: 0.2 at 8/255, 2 at
    16/255. With `init="fgsm"` x' is the point of FGSM training, and `soar-tf train` watches for
    catastrophic overfitting, as for `fast`.

    With a norm clip, `fit` logs `curvature_norm`, the mean norm before clipping, and, if each norm
    is clipped separately, `unclipped`, the share of examples below the clip: only their penalty has
    a gradient, and only they need the second backward pass. See `skip_clipped` of
    `soar_tf.RobustModel`.

    Args:
        epsilon: Radius of the threat model, in units of the pixel range.
        lambda_: Weight $\lambda$ of the penalty. Default: the preset's.
        alpha: Largest finite-difference step h, an l2 distance; h ~ U(0, alpha). `"ball"` is the
            radius of the l2 ball around the threat model's ball, `sqrt(d) * epsilon` for linf.
        init: The point x': `"pgd1"` (random start, then one PGD step), `"random"` (random start),
            `"zero"` (x itself) or `"fgsm"` (one step from x to the face of the ball). `"random"`
            and `"zero"` let the network mask its gradients.
        step_size: Length of the step to x'. Default: `epsilon / 4` (2/255 at 8/255), or
            `2.5 * epsilon` for l2, or `epsilon` with `init="fgsm"`.
        step_direction: The direction that `step_size` multiplies: `"steepest"` (the gradient's
            sign; for l2, the unit vector along the gradient) or `"gradient"` (the gradient itself,
            as printed in section 4.2: a much shorter step, so x' is nearly a random start).
        num_directions: Number of random directions z.
        norm_clip: Largest value of the norm $\|\cdot\|_2$, or of the `measure` that replaces it
            (`None` for no clipping). Default: the preset's.
        norm_clip_scope: `"example"` clips each norm to `norm_clip`, so an example above it has no
            gradient; `"batch"` scales all norms of a batch so that their mean is at most
            `norm_clip`, which means that batches must not be split (one replica, no `micro_batch`).
        penalty_clipnorm: Largest l2 norm of the penalty's parameter gradient, which is clipped
            separately (`None` for no clipping).
        h_min: Smallest h; below 1e-3 float32 rounding swamps the difference.
        norm: Norm of the threat model, `"linf"` or `"l2"`.
        hvp: `"finite_difference"` or `"exact"`, see `soar_tf.ops.curvature.curvature_norm`.
        estimator: `"mean_norm"` (the paper's) or `"root_mean_square"`.
        full_vector: Whether to include the last component of Hz, which eq. 11 leaves out.
        preset: The interpretation of the paper's constants that `lambda_` and `norm_clip` default
            to: `"per_example"` (0.5 and 10, literally) or `"batch_mean"` (0.5/128 and 1280:
            gradients of a mean over 128 examples), which trades clean accuracy for robustness.
        inner_loss: The loss that the PGD1 step maximises: `"training"` (the compiled loss),
            `"cross_entropy"`, `"margin"` or `"dlr"`, see `soar_tf.methods.Adversarial`.
        penalty_loss: The loss whose growth R bounds, from the same list. With a loss other than
            `"training"`, the training loss's gradient in the weights takes a separate backward
            pass.
        penalty_fraction: Share f of the batch, in (0, 1], that the penalty is computed on; see
            `soar_tf.methods.Regularizer`. A step costs at most (5 + 12 f) / 3 standard steps, and
            about (5 + (4 + 12 s) f) / 3 if a share s of the examples, below 0.6, is unclipped.
        penalty_every: The penalty is computed in every k-th step, and multiplied by k there.
        measure: How the gradient's change is measured: `"absolute"` (eq. 11), `"relative"` or
            `"cosine"`, see above. The last two do not support `hvp="exact"` or `full_vector`.

    Raises:
        InputError: For an argument out of range, or incompatible arguments.

    Example:

    >>> import soar_tf
    >>> soar_tf.methods.SOAR(epsilon="8/255", preset="batch_mean").norm_clip
    1280.0
    """

    starts_from_standard = True

    def __init__(
        self,
        epsilon=8 / 255,
        lambda_="preset",
        alpha=0.03,
        init="pgd1",
        step_size=None,
        step_direction="steepest",
        num_directions=1,
        norm_clip="preset",
        norm_clip_scope="example",
        penalty_clipnorm=30.0,
        h_min=curvature.MINIMUM_STEP,
        norm="linf",
        hvp="finite_difference",
        estimator="mean_norm",
        full_vector=False,
        preset="per_example",
        inner_loss="training",
        penalty_loss="training",
        penalty_fraction=1.0,
        penalty_every=1,
        measure="absolute",
    ):
        self.preset = check_choice(preset, "preset", PRESETS)
        constants = PRESETS[preset]
        # PGD checks epsilon, norm and step_size.
        step_size = optional_number(step_size, "step_size", minimum=0.0)
        self.step_direction = check_choice(step_direction, "step_direction", STEPS)
        check_choice(norm, "norm", ("linf", "l2"))
        self.init = check_choice(init, "init", INITS)
        self.attack = STEPS[step_direction](epsilon, norm, 1, step_size, init != "fgsm")
        self.epsilon, self.norm = self.attack.epsilon, self.attack.norm
        self.step_size = self.attack.step_size
        if init == "fgsm":
            self.train_settings = crafting.WATCHED
            if step_size is None:
                self.attack.step_size = self.epsilon
        if isinstance(lambda_, str) and lambda_ == "preset":
            lambda_ = constants["lambda_"]
        super().__init__(lambda_, penalty_fraction, penalty_every)
        at_ball_scale = isinstance(alpha, str) and alpha == BALL
        if not at_ball_scale:
            alpha = check_number(alpha, "alpha", minimum=0.0, exclusive=True)
        self.alpha, largest = alpha, None if at_ball_scale else alpha
        self.h_min = check_number(h_min, "h_min", minimum=0.0, maximum=largest, exclusive=True)
        self.num_directions = check_integer(num_directions, "num_directions", minimum=1)
        if isinstance(norm_clip, str) and norm_clip == "preset":
            norm_clip = constants["norm_clip"]
        self.norm_clip = optional_number(norm_clip, "norm_clip", minimum=0.0, exclusive=True)
        self.norm_clip_scope = check_choice(
            norm_clip_scope, "norm_clip_scope", curvature.CLIP_SCOPES
        )
        self.couples_examples = norm_clip_scope == "batch"
        clips_each = self.norm_clip is not None and norm_clip_scope == "example"
        self.diagnostics = (UNCLIPPED,) if clips_each else ()
        if self.norm_clip is not None:
            self.diagnostics += ("curvature_norm",)
        self.penalty_clipnorm = optional_number(
            penalty_clipnorm, "penalty_clipnorm", minimum=0.0, exclusive=True
        )
        self.hvp = check_choice(hvp, "hvp", curvature.HVPS)
        self.estimator = check_choice(estimator, "estimator", curvature.ESTIMATORS)
        self.full_vector = check_boolean(full_vector, "full_vector")
        self.measure = check_choice(measure, "measure", curvature.MEASURES)
        if measure != "absolute" and (self.full_vector or self.hvp == "exact"):
            raise InputError(
                "`measure` must be 'absolute' with full_vector=True or hvp='exact', which apply to "
                f"equation 11 only. Received: {measure!r}."
            )
        self.inner_loss = inner.check(inner_loss, "inner_loss")
        self.penalty_loss = inner.check(penalty_loss, "penalty_loss")
        self.takes_mixed_labels = inner.takes_mixed_labels(self.inner_loss, self.penalty_loss)

    def point(self, forward, x, y, *, loss_fn, keys):
        inner_loss_fn = inner.choose(self.inner_loss, loss_fn)
        derived = random.derive(keys, "init")
        return forward.search(lambda: self.expansion_point(forward, x, y, inner_loss_fn, derived))

    def curvature_terms(self, forward, x, y, *, loss_fn, keys):
        penalty_loss_fn = inner.choose(self.penalty_loss, loss_fn)
        values = self.losses_and_logits(forward, y, penalty_loss_fn)
        loss, gradient, loss_gradients, logits = gradients.input_and_weight_gradient(
            values, x, forward.weights, has_aux=True
        )
        derived = random.derive(keys, "curvature")
        size = self._norm(lambda point: values(point)[0], x, gradient, derived)
        penalty = self._bound(size, x)
        if penalty_loss_fn is not loss_fn:
            loss, loss_gradients = loss_fn(y, logits), None
        return Terms(
            loss, logits, penalty, self.lambda_, loss_gradients, diagnostics=self._diagnose(size)
        )

    def expansion_point(self, forward, x, y, loss_fn, keys):
        """The point x' of section 4.2, `[B, ...]`, without gradient."""
        if self.init == "zero":
            return x
        if self.init == "random":
            return tf.stop_gradient(
                random_start(keys, x, self.epsilon, self.norm, self.attack.bounds)
            )
        return self.attack.perturb(forward.inference, x, y, keys, loss_fn=loss_fn)

    def penalty(self, values_fn, x, gradient, keys):
        """R of eq. 11 at `x`, `[B]`; see `soar_tf.ops.curvature.curvature_norm`."""
        return self._bound(self._norm(values_fn, x, gradient, keys), x)

    def _norm(self, values_fn, x, gradient, keys):
        alpha = self.alpha
        if isinstance(alpha, str):
            alpha = curvature.ball_radius(math.prod(x.shape[1:]), self.epsilon, self.norm)
        return curvature.curvature_norm(
            values_fn,
            x,
            gradient,
            keys,
            alpha=alpha,
            h_min=self.h_min,
            num_directions=self.num_directions,
            hvp=self.hvp,
            estimator=self.estimator,
            full_vector=self.full_vector,
            measure=self.measure,
        )

    def _bound(self, size, x):
        clipped = curvature.clip_norm(size, self.norm_clip, self.norm_clip_scope)
        if self.measure != "absolute":
            return clipped
        return curvature.bound_factor(math.prod(x.shape[1:]), self.epsilon, self.norm) * clipped

    def _diagnose(self, size):
        size = tf.stop_gradient(size)
        values = {"curvature_norm": size}
        if UNCLIPPED in self.diagnostics:
            # Exactly at the clip the minimum has a gradient; NaN must reach the gradient.
            values[UNCLIPPED] = tf.cast(~(size > self.norm_clip), size.dtype)
        return {name: values[name] for name in self.diagnostics}
