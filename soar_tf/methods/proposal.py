"""SOAR's `lambda_` and `norm_clip` for networks and images other than the paper's."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from soar_tf.methods.soar import PRESETS, SOAR
from soar_tf.models.inference import as_logits_fn
from soar_tf.ops import curvature, gradients, losses, random
from soar_tf.validation import check_integer, check_pixels

# The largest penalty of an example in the paper's setting, CIFAR-10 at 8/255.
_PAPER = PRESETS["per_example"]
_LARGEST_PENALTY = (
    _PAPER["lambda_"] * _PAPER["norm_clip"] * curvature.bound_factor(32 * 32 * 3, 8 / 255)
)
# The share of the batch that is below the clip and so has a gradient.
_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Proposal:
    """SOAR constants proposed from one batch.

    Attributes:
        lambda_: The proposed weight of the penalty.
        norm_clip: The proposed norm clip.
        factor: (d eps^2 + 1) / 2, the ratio of the penalty to the norm.
        median_norm: The median norm over the batch, before clipping.
        loss: The mean loss of the batch.
        images: Number of images used.
    """

    lambda_: float
    norm_clip: float
    factor: float
    median_norm: float
    loss: float
    images: int

    @property
    def arguments(self):
        """The arguments for `soar_tf.methods.SOAR`."""
        return {"lambda_": self.lambda_, "norm_clip": self.norm_clip}

    def __str__(self):
        return f"lambda_={self.lambda_:g}, norm_clip={self.norm_clip:g}"


def propose(network, x, y, *, epsilon=8 / 255, norm="linf", images=64, seed=0):
    r"""Proposes SOAR's `lambda_` and `norm_clip` for a network and its images.

    The paper's constants are for CIFAR-10 at 8/255, where $(d\epsilon^2 + 1)/2 = 2$. The factor
    grows with the number of pixels (75 at 224 x 224 x 3 pixels) and the norm varies with the
    network, so elsewhere the same constants give a penalty that dominates the loss, or one that is
    clipped for every example and so has no gradient. The proposal limits both:

    * the clip is at least the paper's 10, and leaves a quarter of the batch with a gradient;
    * an example's largest penalty is at most the paper's,
      $\lambda \cdot (d\epsilon^2 + 1)/2 \cdot \mathrm{clip} = 10$.

    It is a starting point, not a tuned value: compare the clean accuracy before and after.

    Args:
        network: The built `keras.Model` giving logits that will be fine-tuned.
        x: float32 `[N, ...]`, training images, pixels in [0, 1].
        y: int `[N]`, labels.
        epsilon: Radius of the threat model, in units of the pixel range.
        norm: `"linf"` or `"l2"`.
        images: Number of images to use, evenly spaced in `x`.
        seed: Seed of the noise.

    Returns:
        A `Proposal`.

    Raises:
        InputError: For pixels outside [0, 1] or an argument out of range.

    Example:

    >>> import soar_tf
    >>> digits = soar_tf.datasets.load("digits")["train"].take(64)
    >>> network = soar_tf.networks.mlp()
    >>> images = digits.float_images()
    >>> soar_tf.methods.propose(network, images, digits.labels, epsilon=0.15).norm_clip
    10.0
    """
    x = np.asarray(x)
    check_pixels(x[: min(len(x), 1024)], "x")
    count = check_integer(images, "images", minimum=1)
    rows = np.unique(np.linspace(0, len(x) - 1, count).round().astype(int))
    method = SOAR(epsilon=epsilon, norm=norm)
    norms, values = _norms(method, network, x[rows], np.asarray(y)[rows], seed)
    factor = float(curvature.bound_factor(math.prod(x.shape[1:]), method.epsilon, norm))
    clip = max(_PAPER["norm_clip"], _two_digits(float(np.quantile(norms, _SHARE))))
    weight = min(_PAPER["lambda_"], _two_digits(_LARGEST_PENALTY / (factor * clip)))
    return Proposal(
        lambda_=weight,
        norm_clip=clip,
        factor=factor,
        median_norm=float(np.median(norms)),
        loss=float(values.mean()),
        images=len(rows),
    )


def _norms(method, network, x, y, seed):
    """Norms and losses `[N]` of the network in inference mode, at SOAR's expansion points."""
    logits_fn = as_logits_fn(network)
    keys = random.example_keys(seed, tf.range(len(x)), purpose="training")
    x, y = tf.constant(x, tf.float32), tf.constant(y)

    def values(point):
        return losses.cross_entropy(y, logits_fn(point))

    start = random.derive(keys, "init")
    point = method.attack.perturb(logits_fn, x, y, start, loss_fn=losses.cross_entropy)
    value, gradient = gradients.input_gradient(values, point)
    derived = random.derive(keys, "curvature")
    norms = curvature.curvature_norm(values, point, gradient, derived, alpha=method.alpha)
    return norms.numpy(), value.numpy()


def _two_digits(value):
    return float(f"{value:.2g}")
