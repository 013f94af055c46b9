"""What can be said about a network's outputs, and how it is said: the probe's findings."""

import dataclasses
import typing

import numpy as np

from soar_tf.errors import InputError

ADVICE = "; soar-tf evaluate --adaptive (adaptive=True in Python) attacks through it"
"""What to do about hidden gradients, in the message of each finding about them."""

_TINY = 1e-3


class Finding(typing.NamedTuple):
    """Something about a network that figures depend on.

    Attributes:
        name: Its short name, such as `"random"`.
        unusable: Whether no figure of such a network means anything.
        message: One sentence: what was seen, on how many images, and what to do.
    """

    name: str
    unusable: bool
    message: str


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        n: Number of images looked at.
        findings: The `Finding`s; none is good.
    """

    n: int
    findings: tuple

    @property
    def names(self):
        """The findings' short names."""
        return tuple(finding.name for finding in self.findings)

    def raise_if_unusable(self, *also):
        """Refuses a network with an unusable finding, or one named in `also`.

        Raises:
            InputError: With the first such finding's sentence.
        """
        for finding in self.findings:
            if finding.unusable or finding.name in also:
                raise InputError(finding.message)


def output_form(outputs, logits=True):
    """A finding where outputs are several, or should be logits and are no `[B, C]`, C > 1."""
    if isinstance(outputs, (dict, list, tuple)):
        return Finding(
            "several_outputs",
            True,
            f"`network` must have one output. Received: a {type(outputs).__name__} of "
            f"{len(outputs)}.",
        )
    shape = tuple(outputs.shape)
    if not logits:
        if len(shape) == 2:
            return None
        message = f"`network` must give outputs [B, C]. Received shape {shape}."
        return Finding("shape", True, message)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return Finding(
            "one_output",
            True,
            f"`network` must give logits [B, C] of at least 2 classes. Received shape {shape}; for "
            "two classes, give the logits [0, z] instead of one.",
        )
    if len(shape) != 2:
        return Finding("shape", True, f"`network` must give logits [B, C]. Received shape {shape}.")
    return None


def output_values(z):
    """What the outputs' values say: probabilities, several labels, cut off, few values."""
    count = z.size
    if (total := _shares(z)) is not None:
        yield Finding(
            "probabilities",
            True,
            "`network` must give logits, but its outputs are probabilities (each row sums to "
            f"{total:.3g}), which hide gradients; take off the softmax, for a Keras model with "
            "soar_tf.networks.to_logits.",
        )
        return
    if count >= 20 and _like_sigmoids(z):
        yield Finding(
            "sigmoid",
            True,
            f"`network` must give one logit per class, but all {count} outputs on {len(z)} images "
            "lie in [0, 1], as a sigmoid's; take off the sigmoid, and give each image one label.",
        )
        return
    if 0 < np.ptp(z) < _TINY:
        yield Finding(
            "tiny",
            False,
            f"The outputs of {len(z)} images differ by {np.ptp(z):.2g} at most: losses hardly tell "
            f"classes apart, and slopes are lost in rounding{ADVICE}.",
        )
    elif count >= 20 and (kind := _bounded(z)) is not None:
        yield Finding(
            "bounded",
            False,
            f"The outputs of {len(z)} images lie in [{z.min():.3g}, {z.max():.3g}], as {kind}: no "
            "loss can be small on them, and attacks on the cross-entropy see little slope; give "
            f"the outputs before it{ADVICE}.",
        )
    at_limit = int((z == z.max()).sum())
    if at_limit > max(3, len(z) // 4) and np.ptp(z) > 0:
        yield Finding(
            "clipped",
            False,
            f"The outputs of {len(z)} images reach their largest value, {z.max():.4g}, "
            f"{at_limit} times: they are cut off or saturated, and attacks see no slope "
            f"there{ADVICE}.",
        )
    elif count >= 20 and len(np.unique(z)) <= count // 2 and len(np.unique(z, axis=0)) > 1:
        yield Finding(
            "rounded",
            False,
            f"The {count} outputs of {len(z)} images take only {len(np.unique(z))} values: they "
            f"are rounded, and attacks see no slope{ADVICE}.",
        )


def _shares(z):
    """What each row of probabilities sums to, in whatever scale they are; `None` for others."""
    if look_like_probabilities(z):
        return 1.0
    totals = z.sum(axis=1)
    if np.ptp(z, axis=0).max() <= _TINY * np.ptp(z):
        return None  # the same outputs for all images
    if z.min() >= 0.0 and np.ptp(totals) <= 1e-3 * totals.max():
        return float(totals.mean())
    # Of half precision.
    if z.min() >= 0.0 and z.max() <= 1.0 + _TINY and np.isclose(totals, 1.0, atol=0.02).all():
        return 1.0
    # Scaled and shifted, such as 2 p - 1: known by the rows that are sure of a class.
    if z.shape[1] < 4 or np.ptp(totals) > 1e-3 * np.ptp(z):
        return None
    low, total = float(z.min()), float(totals.mean())
    shares = (z - low) / (total - z.shape[1] * low)
    sure = (shares.max(axis=1) > 0.98).sum()
    return total if sure > max(3, len(z) // 4) else None


def _like_sigmoids(z):
    """Whether outputs are a sigmoid's: in [0, 1], some above one half, no zeros without ones.

    A new network's logits are small and nearly alike for all images, so that of two classes both
    are often positive; a ReLU's have zeros.
    """
    cut_at_zero = (z == 0).any() and z.max() < 1 - _TINY
    return z.min() >= 0.0 and 0.5 < z.max() <= 1.0 and np.ptp(z) > 1e-3 and not cut_at_zero


def _bounded(z):
    """What outputs that a function keeps small look like, or `None`."""
    if np.abs(z).max() <= 1.0 + 1e-6 and z.max() > 0.9 and z.min() < -0.9:
        return "those of a tanh"
    if np.allclose(np.linalg.norm(z, axis=1), 1.0, atol=1e-3) and np.ptp(z, axis=0).max() > _TINY:
        return "those that are normalised to length 1"
    # Logarithms of probabilities do that, too, and are logits.
    if -0.05 < z.max() <= 0.0 and z.min() < -1.0 and np.exp(z).sum(axis=1).max() > 1.01:
        return "logarithms of a sigmoid"
    return None


def look_like_probabilities(logits):
    """Whether outputs `[B, C]` are probabilities: none negative, and each row sums to 1."""
    return bool(like_probabilities(logits).all())


def like_probabilities(logits):
    """bool `[B]`: whether each row of outputs `[B, C]` is not negative and sums to 1."""
    return (logits >= 0.0).all(axis=1) & np.isclose(logits.sum(axis=1), 1.0, atol=1e-3)
