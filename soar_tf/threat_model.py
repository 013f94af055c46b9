"""The threat model: which perturbations of an image count as an attack on it."""

import dataclasses

from soar_tf.formatting import threat_text
from soar_tf.validation import check_bounds, check_choice, check_epsilon

NORMS = ("linf", "l2", "l1")


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """A ball around an image, cut with the box of valid pixels.

    Attacks and methods take `epsilon`, `norm` and `bounds` as arguments and give this object as
    their `threat_model`. Evaluations, callbacks and reports ask a run for it, so that a network is
    judged in the ball that it was trained for.

    Args:
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: Radius, an absolute distance between images with pixels in `bounds`: with pixels in
            [0, 1] a share of the pixel range. A number or a fraction such as `"8/255"`.
        bounds: `(low, high)` of valid pixels.

    Raises:
        InputError: For an unknown norm, a radius that the norm cannot have, or empty bounds.

    Example:

    >>> from soar_tf.threat_model import ThreatModel
    >>> print(ThreatModel("l2", "128/255"))
    L2 0.502
    >>> print(ThreatModel("linf", 8, bounds=(0, 255)))
    Linf 8, pixels in [0, 255]
    """

    norm: str = "linf"
    epsilon: float = 8 / 255
    bounds: tuple = (0.0, 1.0)

    def __post_init__(self):
        check_choice(self.norm, "norm", NORMS)
        object.__setattr__(self, "bounds", check_bounds(self.bounds))
        epsilon = check_epsilon(self.epsilon, norm=self.norm, bounds=self.bounds)
        object.__setattr__(self, "epsilon", epsilon)

    def __str__(self):
        if self.bounds == (0.0, 1.0):
            return threat_text(self.norm, self.epsilon)
        low, high = self.bounds
        return f"{self.norm.capitalize()} {self.epsilon:.4g}, pixels in [{low:g}, {high:g}]"
